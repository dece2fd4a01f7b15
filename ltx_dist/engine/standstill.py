"""Whether this process stood still: SIGSTOP, Ctrl-Z, a debugger, a frozen container.

Clocks run on meanwhile, and so do workers; deadlines that count the gap would end those that are well.
"""

from __future__ import annotations

import time
from collections.abc import Callable

LONGEST_TURN_SECONDS = 5.0
"""Between two looks of a loop that waits half a second at most; the rest is for disks and a busy host."""


class Standstill:
    """To be asked at every turn of a loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()

    def seconds(self) -> float:
        """How long this process stood still since it was asked last; 0 where that was a turn like any other."""
        now = self._clock()
        passed, self._last = now - self._last, now
        return passed if passed > LONGEST_TURN_SECONDS else 0.0
