"""The formats of `ltx-dist export`: one row each, and one module each that writes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from ltx_dist.media.file_formats import LOSSLESS
from ltx_dist.report.finished_clips import FinishedClip

Writer = Callable[[Sequence[FinishedClip], Path], str | None]
"""Writes the clips to a path that is not there yet, with the format's ending; makes the folder itself.
Returns what else to say of it.

May raise OSError, and ValueError for clips that the format cannot hold, or a package that is not installed.
"""


@dataclass(frozen=True, slots=True)
class Format:
    """module: its writer is `write` in there. endings: of the file that it writes; none for a folder. opens: endings of
    the files that it reads beside the sidecars, which are fetched from a bucket."""

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
