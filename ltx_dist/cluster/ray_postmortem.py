"""Confirms that a dead worker's process is gone, so that its GPU can be used again, and reads its last log lines.

Ray may call an actor dead whose process is still there and holds the device's memory (ray-project/ray#59872), so the
node itself is asked.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

GONE_SECONDS = 10.0
"""Seconds within which a killed process is gone, unless the kernel or the driver holds it."""

KILL_AFTER_SECONDS = 2.0
"""Seconds after which a process that Ray did not end gets SIGKILL: it may hang in a C call, or be stopped."""

TAIL_BYTES = 2000
"""Bytes read from the end of a log: enough for the last message of a CUDA assert or of an abort."""


@dataclass(frozen=True, slots=True)
class Home:
    """Where a worker's process runs; asked when it starts, because a dead worker cannot be asked."""

    node_id: str
    pid: int
    log: str


@dataclass(frozen=True, slots=True)
class Remains:
    """is_gone: the process has ended. log: its last lines, empty if it said nothing."""

    is_gone: bool
    log: str


def home(worker: Any) -> Home:
    """Runs in the actor. Ray sends its standard error to a file of its own, which the descriptor names."""
    return Home(ray.get_runtime_context().get_node_id(), os.getpid(), os.readlink("/proc/self/fd/2"))


def examine(home: Home) -> Any:
    """A reference to the Remains, found out by a task on the worker's node; it fails if the node is gone."""
    strategy = NodeAffinitySchedulingStrategy(home.node_id, soft=False)
    return ray.remote(num_cpus=0, max_retries=0)(_examine).options(scheduling_strategy=strategy).remote(home)


def _examine(home: Home) -> Remains:
    started = time.monotonic()
    while _is_running(home.pid):
        waited = time.monotonic() - started
        if waited > GONE_SECONDS:
            return Remains(False, _tail(home.log))
        if waited > KILL_AFTER_SECONDS:
            _kill(home.pid)
        time.sleep(0.05)
    return Remains(True, _tail(home.log))


def _is_running(pid: int) -> bool:
    """Whether the process still runs: one that has ended but was not yet waited for holds nothing."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def _kill(pid: int) -> None:
    with suppress(OSError):  # gone meanwhile
        os.kill(pid, signal.SIGKILL)


def _tail(path: str) -> str:
    """The last lines, without Ray's own bookkeeping."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(line for line in text.splitlines()[-20:] if line.strip() and not line.startswith(":")).strip()
