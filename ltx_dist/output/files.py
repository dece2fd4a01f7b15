"""Writing a file so that no reader, and no crash, ever sees half of it."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class OutputError(Exception):
    """The output folder cannot be written: full, read-only or gone. What was published stays."""


@contextmanager
def output_errors() -> Iterator[None]:
    """Tell these apart from every other OSError, a checkpoint that cannot be read or a lost connection."""
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise OutputError(f"{where}{error.strerror or error}") from error


def write_atomically(path: Path, data: bytes, scratch: Path | None = None) -> None:
    """Put `data` at `path`: the old content or the new one, whatever happens, and durable on return.

    `scratch` is where it is written first: a folder in the same file system, `path`'s own if not given.
    Raises OSError (disk full, no permission) with `path` as it was and nothing left in `scratch`.
    """
    # Not tempfile: its files are readable by their owner alone, and the name would keep that mode. 48 characters of
    # the name are enough to recognise it by, and keep the longest legal name legal.
    temporary = (scratch or path.parent) / f"{path.name[:48]}.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def to_json(content: Any) -> bytes:
    """How every JSON file of ours is written: UTF-8, sorted keys, two spaces. NaN is our own mistake."""
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
