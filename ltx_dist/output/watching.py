"""Who watches a batch: a view, the event log, metrics. Each is told of every stage and every clip as it ends."""

from __future__ import annotations

from typing import Protocol

from ltx_dist.types import Completion, RenderResult


class Watcher(Protocol):
    """Called in the batch's own loop, so neither call may take long."""

    def stage_ended(self, completion: Completion) -> None: ...

    def clip_ended(self, result: RenderResult) -> None:
        """The clip is published, or failed for good."""
        ...


class Watchers:
    """Tells all of them, in the order in which they came."""

    def __init__(self) -> None:
        self._watchers: list[Watcher] = []

    def add(self, watcher: Watcher) -> None:
        self._watchers.append(watcher)

    def stage_ended(self, completion: Completion) -> None:
        for watcher in self._watchers:
            watcher.stage_ended(completion)

    def clip_ended(self, result: RenderResult) -> None:
        for watcher in self._watchers:
            watcher.clip_ended(result)
