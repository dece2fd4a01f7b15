"""Opens the images and videos that rows name: files on this machine, the demo's own, or URLs that fsspec reads."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ltx_dist.messages import first_line
from ltx_dist.user_cache import user_cache

MAX_BYTES = 16 << 30
"""Largest file: an hour of 4K video at 36 Mbit/s. A file from a URL is kept on this machine's disk."""

DEMO = "demo://"
"""Begins the places of the demo's own files, which each machine has where the package is installed."""

_DEMO_FOLDER = Path(__file__).parents[1] / "demo"

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A file whose content is known.

    place: its absolute path, or the URL or `demo://NAME` as given: where any machine finds it. sha256: hex digest of
    its bytes. path: where it lies on this machine.
    """

    place: str
    sha256: str
    path: Path


def resolve_place(given: str, folder: Path | str) -> str:
    """The URL or `demo://NAME` as it is, or the absolute path: `given` is relative to `folder` unless it is absolute or
    begins with `~`.

    folder: a path, or a URL if the prompts come from one. Raises ValueError if no file can have this name.
    """
    if "\0" in given:
        raise ValueError(f"{given!r}: not a file name, because it has a zero byte")
    if "://" in given and not given.startswith("file://"):
        return given
    try:
        path = Path(given.removeprefix("file://")).expanduser()
    except RuntimeError:
        raise ValueError(f"{given}: no such user's folder; write the full path") from None
    if isinstance(folder, str) and not path.is_absolute():
        return f"{folder}/{path.as_posix()}"
    return os.path.abspath(folder / path)


def path_here(place: str) -> Path | None:
    """The path on this machine of a place that is no URL; None for a URL."""
    if place.startswith(DEMO):
        return _DEMO_FOLDER / PurePosixPath(place).name
    return None if "://" in place else Path(place)


def open_media(place: str, sha256: str | None = None) -> MediaFile:
    """The file at a place, with its digest; what comes from a URL is copied to the user's cache once.

    sha256: the digest it must have, if it was opened before. Raises ValueError, naming the place and the remedy, for a
    file that is missing, not regular, empty, too large, changed since then, or on a store that cannot be read.
    """
    path = path_here(place)
    if path is not None:
        found = MediaFile(place, _digest_of_file(path, place), path)
    else:
        kept = user_cache() / "media" / (sha256 or "")
        found = MediaFile(place, sha256, kept) if sha256 and kept.is_file() else _download(place)
    if sha256 is not None and found.sha256 != sha256:
        raise ValueError(f"{place}: changed since it was first read; do not change media until the batch is done")
    return found


def _digest_of_file(path: Path, place: str) -> str:
    try:
        kind = path.stat()
        if not stat.S_ISREG(kind.st_mode):
            raise ValueError(f"{place}: {_kind(kind.st_mode)}, not a file; name an image or a video")
        if kind.st_size == 0:
            raise ValueError(f"{place}: empty; write it again")
        if kind.st_size > MAX_BYTES:
            raise ValueError(f"{place}: larger than {MAX_BYTES >> 30} GiB; cut out the part that is needed")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{place}: no such file; paths are relative to the prompt file's folder") from None
    except OSError as error:
        raise ValueError(f"{place}: cannot be read: {error.strerror}") from None


def _kind(mode: int) -> str:
    kinds: tuple[tuple[Callable[[int], bool], str], ...] = (
        (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"),
    )  # fmt: skip
    return next((name for is_kind, name in kinds if is_kind(mode)), "a device")


def _download(url: str) -> MediaFile:
    """Download a URL into the cache, under its digest. It is written to a scratch file first, so that a file with the
    name of its digest is always complete."""
    folder = user_cache() / "media"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=".download-")
    except OSError as error:
        raise ValueError(f"{url}: cannot be kept in {folder}: {error.strerror}; free space there") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            sha256 = _copy(url, file)
        os.replace(temporary, folder / sha256)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return MediaFile(url, sha256, folder / sha256)


def _copy(url: str, file: Any) -> str:
    """Download a URL and return its digest. Stores raise errors of many classes; all become ValueError here."""
    import fsspec

    digest, size = hashlib.sha256(), 0
    try:
        opened: Any = fsspec.open(url, "rb")
        with opened as remote:
            while chunk := remote.read(_CHUNK):
                digest.update(chunk)
                file.write(chunk)
                size += len(chunk)
                if size > MAX_BYTES:
                    break
    except Exception as error:
        raise ValueError(f"{url}: cannot be read: {first_line(error)}; check the URL and your access to it") from None
    if size > MAX_BYTES:
        raise ValueError(f"{url}: larger than {MAX_BYTES >> 30} GiB; cut out the part that is needed")
    if not size:
        raise ValueError(f"{url}: empty; write it again")
    return digest.hexdigest()
