"""How a run is stopped from outside, by a signal or a program, and its exit code, which `run.json` also has."""

from __future__ import annotations

import time
from collections.abc import Callable

EXIT_DONE = 0
EXIT_INTERNAL = 1
EXIT_BAD_INPUT = 2
EXIT_SOME_FAILED = 3
EXIT_OUTPUT = 74
EXIT_STOPPED = 75


class Stop:
    """Whether the run was asked to stop, and whether its time to finish clips is over.

    After a request to stop, a run begins nothing new and publishes the clips whose frames are decoded. When its time is
    over, it ends what is still running, except for a stage in this process, which it waits for.

    interrupts: whether KeyboardInterrupt may be raised in the run when its time is over. Not with Ray, where an
    exception inside its C++ code may abort the process; there, the batch loop checks `is_over`. last_words: called in
    another thread before the process is ended by force. on_end: called when the run begins to end. leave: called in any
    thread, with a line, when the run cannot continue; by default it ends only the run, for the reason `why`.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self.is_ending = False
        self.interrupts = True
        self.last_words: Callable[[], None] = lambda: None
        self.on_end: Callable[[], None] = lambda: None
        self.leave: Callable[[str], None] = self._leave
        self.why = ""
        self._over_at = float("inf")

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._over_at

    def ask(self, seconds: float) -> None:
        """Ask the run to stop. seconds: until its time is over; a second call can only shorten it."""
        self.is_asked = True
        self._over_at = min(self._over_at, time.monotonic() + seconds)

    def _leave(self, why: str) -> None:
        self.why = why
        self.ask(0.0)

    def end(self) -> None:
        """Mark that the run is ending: what remains, writing `run.json`, must not be interrupted."""
        self.is_ending = True
        self.on_end()
