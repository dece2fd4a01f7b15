"""One run at a time per output folder."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from ltx_dist.store.files import INTERNAL, make_folder, to_json, write_atomically


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for this run. The operating system releases it when the process ends, however it ends.

    Where a file system knows no locks, filelock keeps a file instead, and takes over one of a process that is gone.
    Raises ValueError naming the run that holds it; OSError when the folder cannot be written.
    """
    internal = folder / INTERNAL
    make_folder(internal)
    holder = internal / "holder.json"
    lock = FileLock(internal / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"{folder}: in use by {_describe(holder)}; wait for it, or choose another folder") from None
    try:
        write_atomically(holder, to_json({"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}))
        yield
    finally:
        lock.release()


def _describe(holder: Path) -> str:
    """Who wrote `holder.json` last; nobody by name in the moment before the new holder has."""
    try:
        known = json.loads(holder.read_text())
        pid, host, since = known["pid"], known["host"], known["since"]
        if host == socket.gethostname() and not _is_running(pid):
            return "another run that has just begun"
        return f"the run with process id {pid} on {host} since {since}"
    except (OSError, ValueError, KeyError, TypeError):
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
