"""Finds the finished clips of an output folder with their sidecars, and the unfinished ones with the reason."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltx_dist.report.verify import unfinished_clips
from ltx_dist.store.clip_names import clip_names, with_ending
from ltx_dist.store.found import MAX_SIDECAR_BYTES, read_found_json
from ltx_dist.store.object_store import is_uploaded


@dataclass(frozen=True, slots=True)
class FinishedClip:
    """A clip whose mp4 exists.

    folder: the output's. location: the mp4's absolute path or URL, for other programs. sidecar: `NAME.json` as read.
    """

    name: str
    folder: Path
    location: str
    sidecar: Mapping[str, Any]

    @property
    def request(self) -> Mapping[str, Any]:
        return self.sidecar["request"]

    @property
    def mp4(self) -> Path:
        """The path of the mp4, which no longer exists if it has been uploaded."""
        return self.file(".mp4")

    def file(self, ending: str) -> Path:
        """The path of the clip's file with this ending; it may not exist."""
        return with_ending(self.folder / self.name, ending)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A clip that is not finished: failed, not rendered yet, or without one of its files."""

    name: str
    reason: str


def finished_clips(folder: Path, url: str | None = None) -> tuple[list[FinishedClip], list[LeftOut]]:
    """The finished and the unfinished clips, sorted by name. Only the mp4s' sizes are checked; `ltx-dist verify` reads
    them. url: the output's, if `folder` is its staging folder or was downloaded from it.
    """
    root = url or str(folder.absolute())
    finished: list[FinishedClip] = []
    left_out: list[LeftOut] = []
    names = clip_names(folder)
    for name in names:
        found = _read(folder, name, f"{root}/{name}.mp4")
        if isinstance(found, FinishedClip):
            finished.append(found)
        else:
            left_out.append(found)
    missing = sorted(set(unfinished_clips(folder)) - set(names))
    return finished, left_out + [LeftOut(name, "not rendered yet") for name in missing]


def _read(folder: Path, name: str, location: str) -> FinishedClip | LeftOut:
    mp4, sidecar = (with_ending(folder / name, ending) for ending in (".mp4", ".json"))
    try:
        told = read_found_json(sidecar, MAX_SIDECAR_BYTES)
        if told["status"] != "done":
            return LeftOut(name, f"failed: {(str(told['error']).splitlines() or [''])[0]}")
        if not isinstance(told["request"]["prompt"], str):
            raise TypeError
        json.dumps([name, told], ensure_ascii=False).encode()  # no table or file name holds half a surrogate pair
    except FileNotFoundError:
        return LeftOut(name, f"{sidecar.name} is missing; rerunning the render command writes it again from the mp4")
    except (ValueError, KeyError, TypeError, OSError):
        return LeftOut(name, f"{sidecar.name} is damaged or not a sidecar")
    if is_uploaded(folder, f"{name}.mp4"):
        return FinishedClip(name, folder, location, told)
    if not mp4.is_file():
        return LeftOut(name, f"{mp4.name} is missing")
    if told.get("mp4_bytes", size := mp4.stat().st_size) != size:
        return LeftOut(name, f"{mp4.name} is not the file that was published (its size differs)")
    return FinishedClip(name, folder, location, told)
