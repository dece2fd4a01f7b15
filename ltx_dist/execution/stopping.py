"""How a run is stopped from outside: SIGTERM, Ctrl-C, a terminal that closes.

The first signal asks: nothing new is begun, and clips whose frames are there are published. When the grace is over, or
at a second signal, KeyboardInterrupt ends what is still running; one more ends the process on the spot. What was not
published by then is not lost either: the next run goes on with it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

EXIT_STOPPED = 75

LEAVE_SECONDS = 2.0
"""Of the grace, for ending workers and writing `run.json`."""

LEAST_SECONDS = 0.2


class Stop:
    """Whether the run was asked to stop, and whether its grace is over.

    interrupts: whether KeyboardInterrupt is raised when it is. Not with Ray: an exception in the midst of its C++ may
    abort the process, so the loop of the batch looks at `is_over`. last_words: what is to be said if ending takes too
    long; called in another thread.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self.is_over = False
        self.interrupts = True
        self.last_words: Callable[[], None] = lambda: None
        self._is_ending = False
        self._over_at = 0.0
        self._leaving: threading.Timer | None = None

    def end(self) -> None:
        """The run is ending: what is left to do, writing `run.json`, is not to be interrupted by the grace.

        If that was asked for and takes longer than the grace (Ray waits for processes that are still importing), the
        process ends: a file is there whole or not at all, and workers end with their driver.
        """
        self._is_ending = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        if self.is_asked and self._leaving is None:
            left = 0.0 if self.is_over else max(0.0, self._over_at - time.monotonic())
            self._leaving = threading.Timer(left + LEAVE_SECONDS, self._leave)
            self._leaving.daemon = True
            self._leaving.start()

    def close(self) -> None:
        """It has ended in time."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        if self._leaving is not None:
            self._leaving.cancel()

    def _on_signal(self, seconds: float) -> None:
        if self._is_ending:
            os._exit(EXIT_STOPPED)
        if self.is_asked:
            self._on_grace_over()
        else:
            self.is_asked = True
            self._over_at = time.monotonic() + seconds
            signal.setitimer(signal.ITIMER_REAL, seconds)

    def _on_grace_over(self) -> None:
        self.is_over = True
        self.end()
        if self.interrupts:
            raise KeyboardInterrupt

    def _leave(self) -> None:
        with suppress(Exception):
            self.last_words()
        show_cursor = "\x1b[?25h" if sys.stdout.isatty() else ""  # the live view hides it
        print(f"{show_cursor}stopped; run the same command again to go on", flush=True)
        os._exit(EXIT_STOPPED)


@contextmanager
def stop_on_signals(grace_seconds: float) -> Iterator[Stop]:
    """Take signals until the end of the block. grace_seconds: from the first of them to the end of the process.

    Handlers of other libraries must not be set after this: `ray.init` sets one, see `ray_cluster.connect`.
    """
    stop = Stop()
    work_seconds = max(LEAST_SECONDS, grace_seconds - LEAVE_SECONDS)

    def on_signal(signum: int, frame: Any) -> None:
        stop._on_signal(work_seconds)

    def on_alarm(signum: int, frame: Any) -> None:
        stop._on_grace_over()

    asked_by = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # under nohup it stays ignored
        asked_by.append(signal.SIGHUP)
    previous = {one: signal.signal(one, on_signal) for one in asked_by}
    previous[signal.SIGALRM] = signal.signal(signal.SIGALRM, on_alarm)
    try:
        yield stop
    finally:
        stop.close()
        for one, handler in previous.items():
            signal.signal(one, handler)
