"""Finds the processes that a proof has started, directly or indirectly, and which of them are still running."""

from __future__ import annotations

import time
from pathlib import Path

Born = dict[int, str]
"""Start times by process id, because an id alone may be reused."""


def descendants(pid: int) -> Born:
    """A process that we started, and its descendants."""
    parents: dict[int, int] = {}
    born: Born = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        if (fields := _stat(path)) is not None:
            parents[int(path.parent.name)], born[int(path.parent.name)] = int(fields[1]), fields[19]
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {one: born[one] for one in found if one in born}


ACTOR = "ray::StageWorker"
"""Part of the title of a worker's process, whether it loads, runs or waits."""


def titled(words: str, pid: int) -> Born:
    """The process `pid` and its descendants, as far as they have these words in their command line."""
    return {one: born for one, born in descendants(pid).items() if words in _title(one)}


def survivors(processes: Born, seconds: float) -> int:
    """The number of processes still running after this many seconds; returns early once there are none."""
    deadline = time.monotonic() + seconds
    while left := sum(_is_alive(pid, born) for pid, born in processes.items()):
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    return left


def _is_alive(pid: int, born: str) -> bool:
    fields = _stat(Path(f"/proc/{pid}/stat"))
    return fields is not None and fields[19] == born and fields[0] not in ("Z", "X")


def _stat(path: Path) -> list[str] | None:
    """The fields of a process's stat file after its name, beginning with its state; None if the process has ended."""
    try:
        return path.read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
