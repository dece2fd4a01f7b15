"""The view for files, pipes and logs: one line per finished clip, and one about the batch every 30 s, never cut."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.text import Text

from ltx_dist.pipeline.work import Completion, RenderResult
from ltx_dist.report.tally import Clock, Tally

SUMMARY_EVERY = 30.0
"""Seconds between two lines about the batch: rare enough for a log of a day, and often enough that silence means
trouble."""

LOADING_AFTER = 5.0
"""Seconds without any work after which a line says why: reading T5 from network storage takes minutes."""


class PlainView:
    """Prints to a log. `tick` is to be called about every second, in any thread."""

    def __init__(
        self, tally: Tally, console: Console, clock: Clock, queue_lengths: Callable[[], Mapping[str, int]]
    ) -> None:
        self._tally, self._console, self._clock, self._queue_lengths = tally, console, clock, queue_lengths
        self._due, self._loading_due = clock() + SUMMARY_EVERY, clock() + LOADING_AFTER
        self._lock = threading.Lock()

    def stage_ended(self, completion: Completion) -> None:
        with self._lock:
            self._tally.stage_ended(completion)

    def clip_ended(self, result: RenderResult) -> None:
        with self._lock:
            self._print(self._tally.add(result))

    def tick(self) -> None:
        with self._lock:
            if self._clock() >= self._loading_due:
                self._loading_due = math.inf
                if not self._tally.has_begun:
                    self._print(self._tally.so_far({}))
            if self._clock() >= self._due:
                self._due = self._clock() + SUMMARY_EVERY
                self._print(self._tally.so_far(self._queue_lengths()))

    def close(self) -> None:
        self._print(self._tally.summary())

    def _print(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)
