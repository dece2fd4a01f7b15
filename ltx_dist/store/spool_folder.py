"""The folder of spooled latents, by names alone: no tensor is read, so nothing heavy is imported for it."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ltx_dist.store.files import INTERNAL, HeldFolder, opened_folder, remove_file, unflat

ENDING = ".safetensors"


@dataclass(frozen=True, slots=True)
class Spooled:
    """A file of the spool: its name, its bytes, and when it was written, in seconds since 1970."""

    name: str
    size: int
    mtime: float

    @property
    def request_id(self) -> str:
        return unflat(self.name.removesuffix(ENDING))


def spool_folder(output: Path) -> Path:
    return output / INTERNAL / "spool"


def list_spool(folder: Path, held: HeldFolder | None = None) -> list[Spooled]:
    """The regular files of a spool, none where there is no folder; links and whatever else lies there are left alone.

    Raises OSError where a link or a file is in the folder's place.
    """
    found: list[Spooled] = []
    try:
        with opened_folder(folder, held) as descriptor:
            for name in os.listdir(descriptor):
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if name.endswith(ENDING) and stat.S_ISREG(status.st_mode):
                    found.append(Spooled(name, status.st_size, status.st_mtime))
    except FileNotFoundError:
        return []
    return found


def drop_latents(folder: Path, published: Collection[str], held: HeldFolder | None = None) -> None:
    """Remove the latents of these clips. Raises OSError as `list_spool` does."""
    for entry in list_spool(folder, held):
        if entry.request_id in published:
            remove_file(folder / entry.name, held)
