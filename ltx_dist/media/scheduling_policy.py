"""Keeps real-time threads of an encoder from taking the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

THREADS = Path("/proc/self/task")


@contextmanager
def kept_scheduling_policy() -> Iterator[None]:
    """Give threads that become real-time in this block the calling thread's former scheduling policy at its end.

    If the process may, which root may, SVT-AV1 gives its threads and the thread that opens it the policy SCHED_FIFO
    with the priority 99, for good. Whatever else needs their cores then waits, even Ray's heartbeats and sshd, and
    processes that are started later inherit it.
    """
    if not (hasattr(os, "sched_setscheduler") and THREADS.is_dir()):
        yield
        return
    policy, priority, before = os.sched_getscheduler(0), os.sched_getparam(0), _real_time_threads()
    try:
        yield
    finally:
        for thread in _real_time_threads() - before:
            with suppress(ProcessLookupError):  # it has ended
                os.sched_setscheduler(thread, policy, priority)


def _real_time_threads() -> set[int]:
    """The ids of this process's threads with the policy SCHED_FIFO."""
    found: set[int] = set()
    for thread in THREADS.iterdir():
        with suppress(ProcessLookupError):
            if os.sched_getscheduler(int(thread.name)) == os.SCHED_FIFO:
                found.add(int(thread.name))
    return found
