"""Detects that this process stood still: SIGSTOP, Ctrl-Z, a debugger, a frozen container.

Clocks and workers continue meanwhile, so deadlines that counted the gap would end healthy workers.
"""

from __future__ import annotations

import time
from collections.abc import Callable

LONGEST_TURN_SECONDS = 5.0
"""Between two looks of a loop that waits half a second at most; the rest is for disks and a busy host."""


class Standstill:
    """To be called in every iteration of a loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()

    def seconds(self) -> float:
        """Seconds that this process stood still since the last call; 0 after a normal iteration."""
        now = self._clock()
        passed, self._last = now - self._last, now
        return passed if passed > LONGEST_TURN_SECONDS else 0.0
