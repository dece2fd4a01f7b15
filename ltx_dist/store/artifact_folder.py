"""Lists and removes saved stage outputs by their file names, without reading tensors or importing anything heavy."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ltx_dist.store.files import INTERNAL, HeldFolder, flat, opened_folder, remove_file, unflat

ENDING = ".safetensors"

ABANDONED_SECONDS = 3600.0
"""Seconds after which a file in a scratch folder is taken to have been left by a killed run."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A saved output: its name, its bytes, and when it was written or last used, in seconds since 1970."""

    name: str
    size: int
    used: float


def spool_folder(output: Path) -> Path:
    """The folder of the outputs of unfinished clips."""
    return output / INTERNAL / "spool"


def artifact_path(folder: Path, name: str) -> Path:
    """The file of an output: `NAME.safetensors`, a / in the name as %2F."""
    return folder / f"{flat(name)}{ENDING}"


def list_artifacts(folder: Path, held: HeldFolder | None = None) -> list[Artifact]:
    """The regular files of a folder, none if there is no folder; links and anything else in it are left alone.

    Raises OSError if there is a link or a file in place of the folder.
    """
    found: list[Artifact] = []
    try:
        with opened_folder(folder, held) as descriptor:
            for name in os.listdir(descriptor):
                with suppress(FileNotFoundError):  # another run has just removed it
                    status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                    if name.endswith(ENDING) and stat.S_ISREG(status.st_mode):
                        found.append(Artifact(unflat(name.removesuffix(ENDING)), status.st_size, status.st_mtime))
    except FileNotFoundError:
        return []
    return found


def drop_artifacts(folder: Path, names: Collection[str], held: HeldFolder | None = None) -> None:
    """Remove the outputs with these names. Raises OSError as `list_artifacts` does."""
    for artifact in list_artifacts(folder, held):
        if artifact.name in names:
            remove_file(artifact_path(folder, artifact.name), held)


def clear_abandoned(scratch: Path) -> None:
    """Remove partial files of killed runs from a folder that several runs write to."""
    with opened_folder(scratch) as descriptor:
        for name in os.listdir(descriptor):
            with suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and time.time() - status.st_mtime > ABANDONED_SECONDS:
                    os.unlink(name, dir_fd=descriptor)
