"""Finds clips whose keys were made by an earlier version of this package, by other rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ltx_dist.media.seal import claimed
from ltx_dist.messages import count
from ltx_dist.pipeline.keys import KEY_VERSION
from ltx_dist.store.clip_names import with_ending
from ltx_dist.store.found import MAX_SIDECAR_BYTES, ForeignFileError, open_found, read_found_json

UNRECORDED = 2
"""The key version of clips that do not record one."""


def outdated(folder: Path, names: Iterable[str]) -> int:
    """Number of these clips that exist with keys of an earlier version, according to their sidecars, or else seals."""
    return sum(_is_outdated(_told(folder, name)) for name in names)


def why_again(number: int) -> str:
    """One line that says why this many clips are rendered again."""
    return (
        f"{count(number, 'clip')} made by an earlier version of ltx_dist will be rendered again, because clips are now "
        f"identified in another way (key version {KEY_VERSION})"
    )


def _told(folder: Path, name: str) -> Mapping[str, Any]:
    """A clip's own record; empty if there is none, or if it is foreign or damaged."""
    mp4 = with_ending(folder / name, ".mp4")
    try:
        sidecar = read_found_json(with_ending(folder / name, ".json"), MAX_SIDECAR_BYTES)
        if isinstance(sidecar, dict):
            return sidecar if sidecar.get("status") == "done" and mp4.exists() else {}
    except (FileNotFoundError, ValueError):
        pass
    try:
        with open_found(mp4) as file:
            return claimed(file)
    except (FileNotFoundError, ForeignFileError):
        return {}


def _is_outdated(told: Mapping[str, Any]) -> bool:
    version = str(told.get("key_version", UNRECORDED))
    return "render_key" in told and version.isdecimal() and int(version) < KEY_VERSION
