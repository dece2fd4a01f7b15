"""The formats of `ltx-dist export`: one row each, and one module each that writes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from ltx_dist.media.file_formats import LOSSLESS
from ltx_dist.report.finished_clips import FinishedClip

Writer = Callable[[Sequence[FinishedClip], Path], str | None]
"""Writes the clips to a path that does not exist yet: a file with one of the format's endings, or a folder.

Returns a note for the user, or None. Raises OSError, and ValueError if the format cannot hold a clip or if a package is
not installed.
"""


@dataclass(frozen=True, slots=True)
class Format:
    """A format. module: has the writer, `write`. endings: of the file that it writes; empty for a folder.
    opens: endings of the clips' files that it reads besides the sidecars; from a bucket, they are downloaded first."""

    module: str
    endings: tuple[str, ...] = ()
    opens: tuple[str, ...] = (".mp4",)

    def writer(self) -> Writer:
        return import_module(f"ltx_dist.report.export.{self.module}").write


FORMATS = {
    "hf": Format("hf"),
    "webdataset": Format("webdataset"),
    "parquet": Format("parquet", (".parquet",)),
    "vbench": Format("vbench"),
    "csv": Format("csv_file", (".csv",), opens=()),
    "frames": Format("frames", opens=(".mp4", *LOSSLESS)),
    "sheet": Format("sheet", (".jpg", ".jpeg", ".png", ".webp")),
}
