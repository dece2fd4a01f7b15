"""The finished and failed clips of a folder, for Python programs."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ltx_dist.api.errors import input_errors
from ltx_dist.store.clip_names import clip_names, with_ending
from ltx_dist.store.found import MAX_SIDECAR_BYTES, read_found_json
from ltx_dist.store.lock import folder_lock
from ltx_dist.store.object_store import is_uploaded
from ltx_dist.store.other_files import recorded_also
from ltx_dist.store.output import Output, open_output
from ltx_dist.store.output_errors import output_errors

if TYPE_CHECKING:
    import numpy as np

DIGESTS = ("frames_sha256", "latents_sha256", "audio_sha256", "mp4_sha256")

MAX_SHOWN_BYTES = 20 << 20
"""Largest mp4 that is embedded in a notebook: a larger one would make it slow to open."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip, finished or failed.

    request: every setting as resolved. status: `done`, `failed`, or `unknown` if the mp4 or its sidecar is missing, or
    the sidecar is damaged. path: of the mp4, a URL if the output is one; None if there is no mp4. error: why the clip
    is not `done`. seconds: of work, by stage, without loading and waiting. digests: as in the sidecar. also: paths of
    the files beside the mp4 that `output.also` asked for, by ending, such as `.mov`.
    """

    name: str
    request: Mapping[str, Any]
    status: Literal["done", "failed", "unknown"]
    path: Path | str | None = None
    error: str | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    also: Mapping[str, Path | str] = field(default_factory=dict)

    def frames(self) -> np.ndarray:
        """The decoded frames of the mp4: uint8 RGB, shaped (frames, height, width, 3)."""
        from ltx_dist.media.mp4 import read_video

        if not isinstance(self.path, Path):
            raise ValueError(f"{self.name}: there is no mp4 on this machine; path is {self.path}")
        return read_video(self.path)[0]

    def _repr_html_(self) -> str:
        """HTML of a player with the mp4 embedded, so that it plays wherever the notebook is opened."""
        text = html.escape(str(self.request.get("prompt", "")))
        caption = f"<figcaption><b>{html.escape(self.name)}</b> {text}</figcaption>"
        can_show = isinstance(self.path, Path) and self.path.is_file() and self.path.stat().st_size <= MAX_SHOWN_BYTES
        if not can_show:
            where = html.escape(str(self.error if self.path is None else self.path))
            return f"<figure><p>{self.status}: {where}</p>{caption}</figure>"
        assert isinstance(self.path, Path)
        source = base64.b64encode(self.path.read_bytes()).decode()
        return f'<figure><video controls loop muted src="data:video/mp4;base64,{source}"></video>{caption}</figure>'


def clips(folder: str | PathLike[str]) -> list[Clip]:
    """All clips of a run's output, a folder or a URL, sorted by name.

    Raises InputError if there is no such folder or a URL has no output, OutputError if it cannot be read.
    """
    with input_errors(), output_errors(), ExitStack() as held:
        out = open_output(fspath(folder), "folder")
        if out.mirror:
            held.enter_context(closing(out.mirror))
            held.enter_context(folder_lock(out.folder))
            out.mirror.pull_output()
        if not out.folder.is_dir():
            raise ValueError(f"folder: {out.folder}: no such folder")
        return [read_clip(out, name) for name in clip_names(out.folder)]


def read_clip(out: Output, name: str) -> Clip:
    """The clip as its sidecar describes it; `unknown`, never an error, if the sidecar is not one of ours."""
    mp4 = f"{name}.mp4"
    path = _where(out, mp4)
    try:
        sidecar = read_found_json(with_ending(out.folder / name, ".json"), MAX_SIDECAR_BYTES)
        is_done = sidecar["status"] == "done"
        found = Clip(
            name,
            dict(sidecar["request"]),
            "failed" if not is_done else "unknown" if path is None else "done",
            path if is_done else None,
            str(sidecar["error"]) if not is_done else f"{mp4} is missing" if path is None else None,
            {stage: float(report["seconds"]) for stage, report in sidecar["stages"].items()},
            {digest: sidecar[digest] for digest in DIGESTS if sidecar.get(digest)},
            {ending: file for ending in recorded_also(sidecar) if (file := _where(out, f"{name}{ending}"))},
        )
    except FileNotFoundError:
        return Clip(name, {}, "unknown", path, f"{name}.json is missing")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError):
        return Clip(name, {}, "unknown", path, f"{name}.json is damaged or not a sidecar")
    return found


def _where(out: Output, name: str) -> Path | str | None:
    if (out.folder / name).is_file():
        return out.folder / name
    return f"{out.mirror.url}/{name}" if out.mirror and is_uploaded(out.folder, name) else None
