"""One run at a time per output folder."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import SoftFileLock, Timeout

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # pyright: ignore[reportAssignmentType]

from ltx_dist.store.files import (
    INTERNAL,
    HeldFolder,
    make_folder,
    open_folder,
    opened_folder,
    to_json,
    write_atomically,
)
from ltx_dist.store.found import read_found_json

LOCK, LOCK_FILE = "lock", "lock-file"
"""Files in `.ltx-dist`: the one that is locked, and one that exists during a run if the file system has no locks."""

NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF})
"""Errors of file systems without locks: NFS without its lock daemon, Lustre without `flock`, some FUSE ones."""

MAX_HOLDER_BYTES = 4096


def check_platform() -> None:
    """Raises ValueError on Windows, which has neither the locks nor the signals that a run needs."""
    if fcntl is None:
        raise ValueError("Windows cannot write output folders; run this command in WSL2 (`wsl --install`)")


@contextmanager
def folder_lock(folder: Path) -> Iterator[HeldFolder]:
    """Lock `folder` for this run, and yield its identity. The operating system releases the lock when the process ends.

    If a file system has no locks, a file replaces the lock; that of a process that has ended is taken over.
    Raises ValueError naming the run that holds the folder, and on Windows; OSError if the folder cannot be written.
    """
    check_platform()
    make_folder(folder / INTERNAL)
    with opened_folder(folder) as descriptor:
        held = HeldFolder.of(folder, descriptor)  # the descriptor stays open, so that no other folder gets this inode
        with _locked(folder, held):
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
            write_atomically(folder / INTERNAL / "holder.json", to_json(holder), held=held)
            yield held


@contextmanager
def _locked(folder: Path, held: HeldFolder) -> Iterator[None]:
    internal = open_folder(folder / INTERNAL, held=held)
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        lock = os.open(LOCK, flags, 0o666, dir_fd=internal)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder / INTERNAL / LOCK)) from None
    finally:
        os.close(internal)
    try:
        try:
            assert fcntl is not None, "check_platform has refused Windows"
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _in_use(folder) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise OSError(error.errno, error.strerror, str(folder / INTERNAL / LOCK)) from None
            with _lock_file(folder):
                yield
        else:
            yield
    finally:
        os.close(lock)


@contextmanager
def _lock_file(folder: Path) -> Iterator[None]:
    lock = SoftFileLock(folder / INTERNAL / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise _in_use(folder) from None
    try:
        yield
    finally:
        lock.release()


def _in_use(folder: Path) -> ValueError:
    who = _describe(folder / INTERNAL / "holder.json")
    return ValueError(f"{folder}: in use by {who}; wait for it, or choose another folder")


def _describe(holder: Path) -> str:
    """A description of the last writer of `holder.json`; unnamed in the moment before the new holder writes it."""
    try:
        known = read_found_json(holder, MAX_HOLDER_BYTES)
        pid, host, since = known["pid"], known["host"], known["since"]
        if host == socket.gethostname() and not _is_running(pid):
            return "another run that has just begun"
        return f"the run with process id {pid} on {host} since {since}"
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return "another run"


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
