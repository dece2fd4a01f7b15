"""Every published clip of a folder against what its sidecar recorded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltx_dist.output.publisher import RESERVED_NAMES
from ltx_dist.output.video import check_video


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one clip; `problem` is None when its file is whole and the one that was published."""

    name: str
    problem: str | None


def verify_folder(folder: Path) -> Iterator[Verdict]:
    """A verdict for each clip that a run left in `folder`, by name: finished, failed, or without its other half.

    Raises ValueError when there is no such folder or no run wrote to it.
    """
    if not (folder / ".ltx-dist").is_dir():
        raise ValueError(f"{folder}: not an output folder of ltx-dist; `ltx-dist render ... -o {folder}` makes one")
    sidecars = {path.stem for path in folder.glob("*.json")} - RESERVED_NAMES
    for name in sorted(sidecars | {path.stem for path in folder.glob("*.mp4")}):
        yield Verdict(name, _problem(folder / f"{name}.mp4", folder / f"{name}.json"))


def _problem(mp4: Path, sidecar: Path) -> str | None:
    try:
        recorded: dict[str, Any] = json.loads(sidecar.read_bytes())
        if recorded["status"] != "done":
            return f"failed: {str(recorded['error']).splitlines()[0]}"
        request, expected = recorded["request"], recorded["mp4_sha256"]
        shape = request["num_frames"], request["height"], request["width"], request["frame_rate"]
    except FileNotFoundError:
        return f"{sidecar.name} is missing"
    except (ValueError, KeyError, TypeError):
        return f"{sidecar.name} is damaged or not a sidecar"
    try:
        content = mp4.read_bytes()
    except FileNotFoundError:
        return f"{mp4.name} is missing"
    if hashlib.sha256(content).hexdigest() != expected:
        return f"{mp4.name} is not the file that was published ({_how_it_differs(content)})"
    try:
        check_video(content, *shape)
    except ValueError as error:
        return str(error)
    return None


def _how_it_differs(content: bytes) -> str:
    if not content:
        return "empty"
    return "all zeros" if not any(content) else "its sha256 differs"
