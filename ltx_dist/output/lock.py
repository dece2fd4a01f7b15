"""One run at a time per output folder."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for this run. The operating system releases it when the process ends, however it ends.

    Raises ValueError naming the run that holds it; OSError when the folder cannot be written.
    """
    internal = folder / ".ltx-dist"
    internal.mkdir(parents=True, exist_ok=True)
    holder = internal / "holder.json"
    lock = FileLock(internal / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"{folder}: in use by {_describe(holder)}; wait for it, or choose another folder") from None
    try:
        holder.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}))
        yield
    finally:
        lock.release()


def _describe(holder: Path) -> str:
    try:
        known = json.loads(holder.read_text())
        return f"the run with process id {known['pid']} on {known['host']} since {known['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another run"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
