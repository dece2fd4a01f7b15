"""Writing a file so that no reader, and no crash, ever sees half of it, and so that no link leads it elsewhere."""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

INTERNAL = ".ltx-dist"
"""The folder, in every output folder, of what is ours alone."""

NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
"""What file systems without them answer: FAT, and many that are a network's or a program's."""


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
    Raises OSError naming `path` and the bytes (disk full, no permission), with `path` as it was and `scratch` empty.
    """
    with _written(path, data, scratch) as (name, source, target):
        os.replace(name, path.name, src_dir_fd=source, dst_dir_fd=target)
        os.fsync(target)  # makes the new name itself survive a power cut


def write_once(path: Path, data: bytes, scratch: Path, stays: Callable[[], bool]) -> bool:
    """As `write_atomically`, but of several that write at the same time exactly one takes a free name.

    stays: asked when the name is taken, also between the look and the write; True keeps what is there, and the
    answer is then False. Where the file system has no hard links, this is a look and then a rename.
    """
    with _written(path, data, scratch) as (name, source, target):
        try:
            os.link(name, path.name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.EEXIST and error.errno not in NO_HARD_LINKS:
                raise
            if stays():
                return False
            os.replace(name, path.name, src_dir_fd=source, dst_dir_fd=target)
        os.fsync(target)
        return True


def make_folder(path: Path) -> None:
    """Make a folder and what it lies in, where they are not there yet."""
    os.close(open_folder(path, make=True))


def open_folder(path: Path, make: bool = False) -> int:
    """A descriptor of a folder. Calls relative to it stay inside, whoever swaps a part of its path for a link.

    From `.ltx-dist` on the path is ours: no link is followed there. What comes before it the user chose.
    """
    parts = path.parts
    num_chosen = len(parts) - 1 - parts[::-1].index(INTERNAL) if INTERNAL in parts else len(parts)
    chosen = Path(*parts[:num_chosen])
    if make:
        chosen.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(chosen, os.O_RDONLY | os.O_DIRECTORY)
    for depth, part in enumerate(parts[num_chosen:], num_chosen + 1):
        try:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=descriptor)
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
        except OSError as error:
            reason = error.strerror
            if error.errno in (errno.ENOTDIR, errno.ELOOP):  # POSIX leaves open which of the two
                reason = "a link or a file where a folder of ours should be; remove it"
            raise OSError(error.errno, reason, str(Path(*parts[:depth]))) from None
        finally:
            os.close(descriptor)
        descriptor = inner
    return descriptor


def clear_folder(path: Path) -> None:
    """Remove the files in a folder, and nothing that a link there leads to."""
    folder = open_folder(path)
    try:
        for name in os.listdir(folder):
            os.unlink(name, dir_fd=folder)
    finally:
        os.close(folder)


def to_json(content: Any) -> bytes:
    """How every JSON file of ours is written: UTF-8, sorted keys, two spaces. NaN is our own mistake."""
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


@contextmanager
def _written(path: Path, data: bytes, scratch: Path | None) -> Iterator[tuple[str, int, int]]:
    """`data` in a file of its own, durable: its name, the folder it is in, and the folder of `path`.

    An OSError from in here is one about `path`. The file is gone at the end, unless it got another name.
    """
    # Not tempfile: its files are readable by their owner alone, and the name would keep that mode. 48 characters of
    # the name are enough to recognise it by, and keep the longest legal name legal.
    name = f"{path.name[:48]}.{os.getpid()}.{secrets.token_hex(4)}"
    opened: list[int] = []
    try:
        opened.append(source := open_folder(scratch or path.parent))
        opened.append(target := open_folder(path.parent))
        try:
            _write_new(name, data, source)
            yield name, source, target
        finally:
            with suppress(OSError):
                os.unlink(name, dir_fd=source)
    except NotADirectoryError:
        raise  # names the link, or the file, that is in the way
    except OSError as error:
        reason = f"{error.strerror} ({len(data)} bytes to write{_room(path)})"
        raise OSError(error.errno, reason, str(path)) from error
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _write_new(name: str, data: bytes, folder: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(name, flags, 0o666, dir_fd=folder)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _room(path: Path) -> str:
    try:
        system = os.statvfs(path.parent)
    except OSError:
        return ""
    return f", {system.f_bavail * system.f_frsize} free"
