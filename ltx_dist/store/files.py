"""Writes files atomically, so that neither a reader nor a crash leaves half of one, and never through foreign links."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltx_dist.store.output_errors import NO_ROOM

INTERNAL = ".ltx-dist"
"""The folder of internal files in every output folder."""

NO_HARD_LINKS = frozenset(
    {
        *(errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL),
        *(errno.EMLINK, errno.EXDEV),
    }
)
"""Errors of file systems without hard links: FAT, and many network or FUSE file systems."""

NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF})
"""Errors of file systems that cannot sync a folder: CIFS, VirtualBox's, drvfs."""


@dataclass(frozen=True, slots=True)
class HeldFolder:
    """An output folder that this run has locked, known by its identity in the file system and not only by its path."""

    path: Path
    device: int
    inode: int

    @classmethod
    def of(cls, path: Path, descriptor: int) -> HeldFolder:
        status = os.fstat(descriptor)
        return cls(path, status.st_dev, status.st_ino)

    def check(self, descriptor: int) -> None:
        """Raise OSError (ESTALE) if `descriptor` is another folder's: ours was renamed, and another took its place."""
        if HeldFolder.of(self.path, descriptor) != self:
            reason = "not the folder that this run began in, which was renamed or replaced"
            raise OSError(errno.ESTALE, reason, str(self.path))


def write_atomically(path: Path, data: bytes, scratch: Path | None = None, held: HeldFolder | None = None) -> None:
    """Write `data` to `path` durably. Whatever happens, `path` has either the old content or the new one.

    scratch: the folder where it is written first, in the same file system; `path`'s own if not given.
    held: the output folder that `path` must be in, checked by its identity; not checked if not given.
    Raises OSError naming `path` (disk full, no permission); `path` is then unchanged and `scratch` empty.
    """
    with _written(path, data, scratch, held) as (name, source, target):
        os.replace(name, path.name, src_dir_fd=source, dst_dir_fd=target)
        _sync_folder(target)  # makes the new name itself survive a power cut


def write_once(
    path: Path, data: bytes, scratch: Path, stays: Callable[[], bool], held: HeldFolder | None = None
) -> bool:
    """Like `write_atomically`, but if several processes write to a free name, exactly one succeeds. Returns whether
    `data` was written.

    stays: called if the name is taken, even between check and write; if it returns True, the existing file is kept.
    On a file system without hard links, check and write are two separate steps.
    """
    with _written(path, data, scratch, held) as (name, source, target):
        try:
            os.link(name, path.name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.EEXIST and error.errno not in NO_HARD_LINKS:
                raise
            if stays():
                return False
            os.replace(name, path.name, src_dir_fd=source, dst_dir_fd=target)
        _sync_folder(target)
        return True


def make_folder(path: Path, held: HeldFolder | None = None) -> None:
    """Make a folder and its parents, if they do not exist."""
    os.close(open_folder(path, make=True, held=held))


def open_folder(path: Path, make: bool = False, held: HeldFolder | None = None) -> int:
    """A descriptor of a folder. Calls relative to it stay inside, even if part of its path is replaced by a link.

    No link is followed in the part of the path that is ours: from the output folder on. Links before that are the
    user's choice. held: the output folder, compared after opening, so that a rename in between is noticed; if not
    given, our part begins at `.ltx-dist`.
    """
    parts = path.parts
    if held is not None and path.is_relative_to(held.path):
        num_chosen = len(held.path.parts)
    else:
        num_chosen = len(parts) - 1 - parts[::-1].index(INTERNAL) if INTERNAL in parts else len(parts)
    chosen = Path(*parts[:num_chosen])
    if make and held is None:
        chosen.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(chosen, os.O_RDONLY | os.O_DIRECTORY)
    if held is not None:
        try:
            held.check(descriptor)
        except OSError:
            os.close(descriptor)
            raise
    for depth, part in enumerate(parts[num_chosen:], num_chosen + 1):
        try:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=descriptor)
                    _sync_folder(descriptor)
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
        except OSError as error:
            reason = error.strerror
            if error.errno in (errno.ENOTDIR, errno.ELOOP):  # which of the two depends on the system
                reason = "a link or a file in the place of one of our folders; remove it"
            raise OSError(error.errno, reason, str(Path(*parts[:depth]))) from None
        finally:
            os.close(descriptor)
        descriptor = inner
    return descriptor


def clear_folder(path: Path, held: HeldFolder | None = None) -> None:
    """Remove the files and links in a folder, but never the target of a link. Subfolders stay."""
    with opened_folder(path, held) as folder:
        for entry in os.listdir(folder):
            if not stat.S_ISDIR(os.stat(entry, dir_fd=folder, follow_symlinks=False).st_mode):
                os.unlink(entry, dir_fd=folder)


def remove_file(path: Path, held: HeldFolder | None = None) -> None:
    """Remove a file, if it exists; for a link, the link itself."""
    with opened_folder(path.parent, held) as folder, suppress(FileNotFoundError):
        os.unlink(path.name, dir_fd=folder)


def write_mark(path: Path) -> None:
    """Make an empty file, if nothing is there. Not durable, because its information can be recovered."""
    with opened_folder(path.parent) as folder, suppress(FileExistsError):
        os.close(os.open(path.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666, dir_fd=folder))


@contextmanager
def opened_folder(path: Path, held: HeldFolder | None = None) -> Iterator[int]:
    """`open_folder`, closed at the end of the block."""
    descriptor = open_folder(path, held=held)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def flat(name: str) -> str:
    """A clip's name as a single file name, for our flat folders: `coast%2Fstorm`. No clip's name has a %."""
    return name.replace("/", "%2F")


def unflat(file_name: str) -> str:
    """The name that `flat` was given."""
    return file_name.replace("%2F", "/")


def to_json(content: Any) -> bytes:
    """The bytes of a JSON file as we write all of them: UTF-8, sorted keys, two spaces. Raises ValueError for NaN."""
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


@contextmanager
def _written(path: Path, data: bytes, scratch: Path | None, held: HeldFolder | None) -> Iterator[tuple[str, int, int]]:
    """Write `data` durably to a temporary file. Yields its name, and descriptors of its folder and of `path`'s folder.

    OSErrors raised inside name `path`. The file is removed at the end, unless it was renamed.
    """
    # Not tempfile: its files are readable only by their owner, and would stay so after the rename. 48 characters of
    # the name are enough to recognise it, and keep the longest legal name legal.
    name = f"{path.name[:48]}.{os.getpid()}.{secrets.token_hex(4)}"
    opened: list[int] = []
    try:
        opened.append(source := open_folder(scratch or path.parent, held=held))
        opened.append(target := open_folder(path.parent, held=held))
        try:
            _write_new(name, data, source)
            yield name, source, target
        finally:
            with suppress(OSError):
                os.unlink(name, dir_fd=source)
    except NotADirectoryError:
        raise  # names the link, or the file, that is in the way
    except OSError as error:
        if error.errno == errno.ESTALE:
            raise
        numbers = f" ({len(data)} bytes to write{_room(path)})" if error.errno in NO_ROOM else ""
        raise OSError(error.errno, f"{error.strerror}{numbers}", str(path)) from error
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


def _sync_folder(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise


def _room(path: Path) -> str:
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError:
        return ""
    return f", {free} free"
