"""The destination of an export: it appears complete under its name or not at all, and replaces nothing."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ltx_dist.store.files import NO_HARD_LINKS


def check_destination(place: Path, endings: tuple[str, ...], source: Path) -> None:
    """Raise ValueError if `place` exists, lacks the format's ending, or is inside the folder `source`.

    An existing empty folder is allowed.
    """
    if endings and place.suffix.casefold() not in endings:
        raise ValueError(f"-o {place}: this format writes a file; end its name in {' or '.join(endings)}")
    if not endings and place.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"-o {place}: is inside the output folder, where it would be taken for clips; choose another")
    is_empty_folder = not endings and place.is_dir() and not place.is_symlink() and not any(place.iterdir())
    if os.path.lexists(place) and not is_empty_folder:
        raise ValueError(f"-o {place}: exists already and is never replaced; remove it, or choose another name")


@contextmanager
def written_whole(place: Path) -> Iterator[Path]:
    """Yield a path beside `place` to write to. At the end of the block it is renamed to `place`; after an error it is
    removed.

    A process that is killed leaves `.NAME.PID.partial...`. Raises OSError, also if `place` was created meanwhile.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.parent / f".{place.name[:48]}.{os.getpid()}.partial{secrets.token_hex(4)}{place.suffix}"
    try:
        yield partial
        if partial.is_dir():
            os.rename(partial, place)  # fails unless nothing, or an empty folder, is there
        else:
            _link(partial, place)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` a hard link to `source` if the file system allows it, otherwise a copy.

    A clip that is rendered again later gets a new file, so the exported one stays as it is.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        shutil.copyfile(source, target)


def _link(partial: Path, place: Path) -> None:
    try:
        os.link(partial, place)
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        if os.path.lexists(place):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(place)) from None
        os.rename(partial, place)
