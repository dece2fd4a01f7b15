"""Who watches a batch: a view, the event log, metrics. Each is told of every stage and every clip as it ends."""

from __future__ import annotations

import threading
from typing import Protocol

from ltx_dist.types import Completion, RenderResult


class Watcher(Protocol):
    """Called in the batch's own loop (stages) and in the thread that publishes (clips), one call at a time.

    So neither may take long.
    """

    def stage_ended(self, completion: Completion) -> None: ...

    def clip_ended(self, result: RenderResult) -> None:
        """The clip is published, or failed for good."""
        ...


class Watchers:
    """Tells all of them, in the order in which they came."""

    def __init__(self) -> None:
        self._watchers: list[Watcher] = []
        self._lock = threading.Lock()

    def add(self, watcher: Watcher) -> None:
        self._watchers.append(watcher)

    def stage_ended(self, completion: Completion) -> None:
        with self._lock:
            for watcher in self._watchers:
                watcher.stage_ended(completion)

    def clip_ended(self, result: RenderResult) -> None:
        with self._lock:
            for watcher in self._watchers:
                watcher.clip_ended(result)
