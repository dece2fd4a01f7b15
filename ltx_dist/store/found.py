"""Opens files of an output folder, which may have come from anywhere, so their kind and size are checked first.

A FIFO would keep its reader waiting forever, a device has no end, and a sparse file of a terabyte is free to make but
not to read.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

BLOCK_BYTES = 1 << 16
"""Small, as most files are: allocating a megabyte for each takes longer than reading it."""

MAX_SIDECAR_BYTES = 4 << 20
"""Maximum bytes of a sidecar: a prompt has at most 8 KiB, and a clip's error a few lines."""

MAX_RUN_BYTES = 1 << 30
"""`run.json` has four events of 250 bytes for each of at most 100,000 clips."""

MAX_TENSOR_FILE_BYTES = 1 << 30
"""Bytes of the latents or embeddings of one clip: the largest take some hundred MB."""

_FLAGS = os.O_RDONLY
for _name in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"):  # Windows has the last of them alone
    _FLAGS |= getattr(os, _name, 0)

ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


class ForeignFileError(ValueError):
    """Something else is in place of one of our files: a folder, a pipe, a device, or a file that is too large."""


@contextmanager
def open_found(path: Path, max_bytes: int | None = None) -> Iterator[BinaryIO]:
    """A regular file of at most `max_bytes`, open for reading; a link to one is followed.

    Raises FileNotFoundError if there is none, or only a broken link; ForeignFileError if it is something else.
    """
    try:
        # The flags prevent waiting for a FIFO's writer, and taking over a terminal.
        descriptor = os.open(path, _FLAGS)
    except OSError as error:
        if error.errno in ABSENT:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
        if error.errno in (errno.ENXIO, errno.ENODEV):  # a socket, or a missing device
            raise ForeignFileError(f"{path}: not a regular file; remove it") from None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise ForeignFileError(f"{path}: {kind}; remove it")
        if max_bytes is not None and status.st_size > max_bytes:
            raise ForeignFileError(f"{path}: {status.st_size} bytes, where at most {max_bytes} are expected; remove it")
    except ForeignFileError:
        os.close(descriptor)
        raise
    with os.fdopen(descriptor, "rb") as file:
        yield file


def read_found(path: Path, max_bytes: int) -> bytes:
    """The content; raises as `open_found` does."""
    with open_found(path, max_bytes) as file:
        content = file.read(size_of(file) + 1)  # allocating `max_bytes` for a small one takes longer than reading it
    if len(content) > max_bytes:  # it has grown since
        raise ForeignFileError(f"{path}: more than {max_bytes} bytes; remove it")
    return content


def read_found_json(path: Path, max_bytes: int) -> Any:
    """The JSON in it. Raises like `open_found`, and ValueError for anything but JSON."""
    return parse_json(read_found(path, max_bytes))


def parse_json(content: bytes | str) -> Any:
    """Like json.loads, but always raises ValueError for invalid JSON."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def size_of(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def sha256_of(file: BinaryIO) -> str:
    """sha256 of the whole file, read block by block, in hexadecimal."""
    digest = hashlib.sha256()
    file.seek(0)
    for block in iter(partial(file.read, BLOCK_BYTES), b""):
        digest.update(block)
    return digest.hexdigest()
