"""Names of the clips in an output folder (`storm`, or `coast/storm` in a subfolder), and the paths of their files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ltx_dist.store.files import INTERNAL

RESERVED_NAMES = frozenset({"run", "trace", "index"})
"""Names of our own files; clips cannot have them."""

ENDINGS = (".mp4", ".json")
"""Extensions of a clip's files; a failed clip has only the second."""


def clip_names(folder: Path) -> list[str]:
    """The name of every clip with an mp4 or a sidecar, sorted with 2 before 10; see `found_names`."""
    return sorted(found_names(folder), key=_natural)


def found_names(folder: Path) -> Iterator[str]:
    """The name of every clip with an mp4 or a sidecar, once, folder by folder as the file system lists them.

    Links to folders, hidden folders, and subfolders that are outputs of other runs are skipped.
    """
    for place, folders, files in os.walk(folder):
        inside = Path(place).relative_to(folder).as_posix()
        if inside != "." and (INTERNAL in folders or "run.json" in files):
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        stems = {stem for stem, ending in map(os.path.splitext, files) if ending in ENDINGS} - RESERVED_NAMES
        yield from (stem if inside == "." else f"{inside}/{stem}" for stem in stems)


def with_ending(clip: Path, ending: str) -> Path:
    """The path of a clip's file. clip: the folder and the clip's name, which may contain dots, so that
    `Path.with_suffix` would cut it."""
    return clip.parent / f"{clip.name}{ending}"


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name)]
