"""Observers of a batch: a view, the event log, metrics. Each is notified when a stage or a clip ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from ltx_dist.pipeline.work import Completion, RenderResult
from ltx_dist.planning.cliff import CliffGuard
from ltx_dist.report.run_record import RunProgress


class Watcher(Protocol):
    """Called in the batch loop (stages) and in the publishing thread (clips), one call at a time.

    Neither method may take long, because rendering or publishing waits for it.
    """

    def stage_ended(self, completion: Completion) -> None: ...

    def clip_ended(self, result: RenderResult) -> None:
        """Called when the clip is published, or when it has failed for good."""
        ...


class Follower(Watcher, Protocol):
    """A watcher that also sees the start and end of the batch."""

    def batch(self, run: RunProgress, warn: Callable[[str], None]) -> AbstractContextManager[None]:
        """A context that is entered before anything is rendered, when `run` knows which clips exist already, and left
        when the run has ended. warn: shows a warning to users.
        """
        ...


class Watchers:
    """Notifies all watchers, in the order in which they were added."""

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


class Warnings:
    """Prints warnings that users should act on, and keeps them for `run.json`."""

    def __init__(self, guard: CliffGuard, run: RunProgress, say: Callable[[str], None]) -> None:
        self._guard, self._run, self._say = guard, run, say

    def stage_ended(self, completion: Completion) -> None:
        if line := self._guard.look(completion):
            self._run.warnings.append(line)
            self._say(line)

    def clip_ended(self, result: RenderResult) -> None:
        for completion in result.completions:
            if completion.report.fallback is not None:
                stage, name = completion.assignment.stage, result.request.request_id
                line = f"{name}: out of memory in {stage}; retried with: {completion.report.fallback}"
                self._run.warnings.append(line)
                self._say(line)
