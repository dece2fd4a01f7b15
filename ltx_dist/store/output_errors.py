"""OutputError: an output folder that cannot be written, with what a person can do about it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
IN_THE_WAY = frozenset({errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENOTEMPTY})
NO_PERMISSION = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class OutputError(Exception):
    """The output folder cannot be written: full, read-only or gone. Published clips are not affected.

    remedy: what the user can do about it.
    """

    def __init__(self, message: str, remedy: str = "choose another output, or repair this one") -> None:
        super().__init__(message)
        self.remedy = remedy


@contextmanager
def output_errors() -> Iterator[None]:
    """Raise an OSError of the block as OutputError, to tell it from others such as an unreadable checkpoint or a lost
    connection."""
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise OutputError(f"{where}{error.strerror or error}", _remedy(error.errno)) from error


def _remedy(number: int | None) -> str:
    if number in NO_ROOM:
        return "free space, or choose another output"
    if number in IN_THE_WAY:
        return "move away what is in the way, or choose another output"
    if number in NO_PERMISSION:
        return "make it writable, or choose another output"
    if number == errno.ESTALE:
        return "leave the folder where it is while a run writes to it"
    return "choose another output, or repair this one"
