"""Opens the source of prompts: a file, any URL that fsspec reads, or standard input."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from ltx_dist.messages import first_line

MAX_FILE_BYTES = 64 << 20


def is_url(source: str) -> bool:
    return "://" in source


def label_of(source: str) -> str:
    """The name of a source in messages: a URL without its query, which may hold a secret."""
    if source == "-":
        return "<stdin>"
    return source.partition("?")[0] if is_url(source) else source


def suffix_of(source: str) -> str:
    """`.csv`, in lower case, of a path or URL; empty without one."""
    return PurePosixPath(label_of(source)).suffix.lower()


def folder_of(source: str) -> Path | str:
    """The base of relative paths in the file: its folder, a URL's parent, or the current folder for `-`."""
    if source == "-":
        return Path()
    return label_of(source).rpartition("/")[0] if is_url(source) else Path(source).parent


def read_bytes(source: str) -> bytes:
    """The content, up to MAX_FILE_BYTES + 1. Raises ValueError naming the source and the remedy."""
    if source == "-":
        return sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
    try:
        with open_binary(source) as file:
            return file.read(MAX_FILE_BYTES + 1)
    except Exception as error:
        raise cannot_read(source, error) from None


def open_binary(source: str) -> AbstractContextManager[BinaryIO]:
    """A file or URL, open for reading and seekable. For a URL it raises errors of many classes."""
    if not is_url(source):
        return Path(source).open("rb")
    import fsspec

    return cast("AbstractContextManager[BinaryIO]", cast("Any", fsspec).open(source, "rb"))


def cannot_read(source: str, error: Exception) -> ValueError:
    """The ValueError for an error in reading a file or URL."""
    label = label_of(source)
    if is_url(source):
        if isinstance(error, FileNotFoundError):
            return ValueError(f"{label}: no such file; check the URL")
        reason = first_line(error).replace(source, label)
        return ValueError(f"{label}: cannot be read: {reason}; check the URL and your access to it")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
    return ValueError(f"{label}: cannot be read: {reason}; check the path")
