"""Clips whose keys were made by an earlier version of this package, which made them by other rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ltx_dist.media.seal import claimed
from ltx_dist.messages import count
from ltx_dist.pipeline.keys import KEY_VERSION
from ltx_dist.store.found import MAX_SIDECAR_BYTES, ForeignFileError, open_found, read_found_json

UNRECORDED = 2
"""The version of the keys of clips that do not tell it."""


def outdated(folder: Path, names: Iterable[str]) -> int:
    """How many of these clips are there and have keys of an earlier version: by their sidecars, else by their seals."""
    return sum(_is_outdated(_told(folder, name)) for name in names)


def why_again(number: int) -> str:
    """Why so many clips are rendered again, in a line."""
    return (
        f"{count(number, 'clip')} made by an earlier version of ltx_dist will be rendered again: keys of clips have "
        f"changed (to version {KEY_VERSION}), so that it cannot tell what made them"
    )


def _told(folder: Path, name: str) -> Mapping[str, Any]:
    """What a clip says of itself. Nothing where there is none, or what is there is foreign or damaged."""
    try:
        sidecar = read_found_json(folder / f"{name}.json", MAX_SIDECAR_BYTES)
        if isinstance(sidecar, dict):
            return sidecar if sidecar.get("status") == "done" and (folder / f"{name}.mp4").exists() else {}
    except (FileNotFoundError, ValueError):
        pass
    try:
        with open_found(folder / f"{name}.mp4") as mp4:
            return claimed(mp4)
    except (FileNotFoundError, ForeignFileError):
        return {}


def _is_outdated(told: Mapping[str, Any]) -> bool:
    version = str(told.get("key_version", UNRECORDED))
    return "render_key" in told and version.isdecimal() and int(version) < KEY_VERSION
