"""Stops a run on SIGTERM, Ctrl-C, or when the terminal closes.

After the first signal nothing new is begun, and clips whose frames are decoded are published. When the grace period is
over, or at a second signal, KeyboardInterrupt ends what is still running; a third signal ends the process at once.
Clips that were not published by then are not lost: the next run resumes them.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import psutil

from ltx_dist.messages import tell
from ltx_dist.run.stop import EXIT_STOPPED, Stop

LEAVE_SECONDS = 2.0
"""Seconds of the grace reserved for ending workers and writing `run.json`."""

LAST_SECONDS = 0.5
"""Part of the grace for writing only `run.json` when ending takes too long, and for the interpreter to exit."""

LEAST_SECONDS = 0.2

TICK_SECONDS = 0.2
"""How precisely the time of a signal is known, in seconds."""


class _Signals:
    """Signal handlers that act on a `Stop`."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        stop.on_end = self.end_timer
        stop.leave = self.leave

    def end_timer(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)

    def on_signal(self, seconds: float) -> None:
        if self._stop.is_ending:
            os._exit(EXIT_STOPPED)
        if self._stop.is_asked:
            self.on_time_over()
        else:
            self._stop.ask(seconds)
            signal.setitimer(signal.ITIMER_REAL, seconds)

    def on_time_over(self) -> None:
        self._stop.ask(0.0)
        self._stop.end()
        if self._stop.interrupts:
            raise KeyboardInterrupt

    def leave(self, why: str = "") -> NoReturn:
        """End the process now, from any thread, with what it started: 75, with `run.json` written by `last_words`."""
        with suppress(Exception):
            self._stop.last_words()
        # Our own cluster: its agents would stay for half a minute.
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                process.kill()
        if sys.stdout.isatty():
            sys.stdout.write("\x1b[?25h")  # the live view hides the cursor
        tell(f"stopped{f': {why}' if why else ''}; rerun the same command to resume")
        os._exit(EXIT_STOPPED)


@contextmanager
def stop_on_signals(grace_seconds: float) -> Iterator[Stop]:
    """Handle signals until the end of the block. grace_seconds: from the first signal to the process's end, at most.

    Handlers of other libraries must not be set after this: `ray.init` sets one, see `ray_cluster.connect`.
    """
    stop = Stop()
    signals = _Signals(stop)
    work_seconds = max(LEAST_SECONDS, grace_seconds - LEAVE_SECONDS)

    def on_alarm(signum: int, frame: Any) -> None:
        signals.on_time_over()

    def on_signal(signum: int, frame: Any) -> None:
        # While `ray.init` runs, its C++ may have met the signal first, and set an alarm that aborts the process.
        signal.signal(signal.SIGALRM, on_alarm)
        signals.on_signal(work_seconds)

    asked_by = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # under nohup it stays ignored
        asked_by.append(signal.SIGHUP)
    with _watched(signals, work_seconds + LEAVE_SECONDS - LAST_SECONDS):
        previous = {one: signal.signal(one, on_signal) for one in asked_by}
        previous[signal.SIGALRM] = signal.signal(signal.SIGALRM, on_alarm)
        try:
            yield stop
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for one, handler in previous.items():
                signal.signal(one, handler)


@contextmanager
def _watched(signals: _Signals, seconds: float) -> Iterator[None]:
    """End the process this many seconds after the first signal, whatever the main thread is doing.

    Signal handlers run in the main thread, only after a call into C returns; in `ray.init` some take seconds. But a
    signal's number is written to a pipe at once, and a thread reads it.
    """
    timer = threading.Timer(seconds, signals.leave)
    timer.daemon = True
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def watch() -> None:
        woke = time.monotonic()
        while True:
            # A second look, because the first may have ended long before this thread could go on.
            is_written = any(select.select([reader], [], [], wait)[0] for wait in (TICK_SECONDS, 0))
            late, woke = time.monotonic() - woke, time.monotonic()
            if is_written and (signum := os.read(reader, 1)[0]) != signal.SIGALRM:
                break
        if signum:
            # It may have come right after the last tick: loading torch's libraries holds the interpreter's lock for
            # a second, and this thread with it.
            timer.interval = max(0.0, seconds - late)
            timer.start()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    previous = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        os.write(writer, b"\0")  # no signal; closing the pipe is not enough if a forked process has it, too
        thread.join()
        os.close(writer)
        os.close(reader)
        timer.cancel()
