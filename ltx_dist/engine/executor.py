"""The `Executor` protocol: what runs assignments for the batch loop, in this process or as Ray actors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ltx_dist.pipeline.payloads import StageOutput
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.work import Assignment, Completion, Failure, WorkerState
from ltx_dist.pipeline.worker import Worker


class WorkerStartError(RuntimeError):
    """A worker did not start: its weights or device cannot serve any clip, so the run ends. The message is one line."""


@dataclass(frozen=True, slots=True)
class Joined:
    """A worker is up and has run nothing yet: an initial one, a replacement, or one on a node that joined."""

    worker: Worker


@dataclass(frozen=True, slots=True)
class Left:
    """A worker is lost; its assignments end with this failure in the same `wait`.

    reason: to be shown to users. can_return: whether `replace` can start it again.
    """

    worker_id: str
    failure: Failure
    reason: str
    can_return: bool


class Executor(Protocol):
    """Holds the outputs of stages by request and stage: conditioning and latents never pass through the caller."""

    def submit(self, assignment: Assignment, requests: Sequence[RenderRequest]) -> None:
        """Start a stage of these requests, now or soon. The worker has nothing else in flight except host stages.

        If the worker is lost, which the caller may not know yet, the assignment ends as QUEUED.
        """
        ...

    def wait(self, timeout: float) -> list[Completion]:
        """The assignments that ended, at least one if any ends within `timeout` seconds.

        Raises WorkerStartError if a worker did not start.
        """
        ...

    def changes(self) -> list[Joined | Left]:
        """Workers that started or were lost since the last call, in order."""
        ...

    @property
    def expected(self) -> frozenset[str]:
        """Ids of workers that are starting. Each joins, or is lost, in bounded time."""
        ...

    def replace(self, worker_id: str) -> None:
        """Start a lost worker again: a new process on the same device, with nothing loaded."""
        ...

    def end_worker(self, worker_id: str, failure: Failure, reason: str, culprit: Assignment | None = None) -> None:
        """Kill a worker. One of the next `wait`s reports its loss, and its assignments end with this failure.

        culprit: the assignment that caused the failure, if known; the others then end as QUEUED, charged to nobody.
        """
        ...

    def fetcher(self, request_id: str, stage: str) -> Callable[[], StageOutput]:
        """A callable that brings the output of a stage that just ended to this process, and returns it.

        It stays valid after `release`, and any thread may call it.
        """
        ...

    def restore(self, request_id: str, stage: str, output: StageOutput) -> None:
        """Hold the output of a stage from an earlier run, as if the stage had run here."""
        ...

    def release(self, request_id: str) -> None:
        """Forget the outputs of a request that has its terminal result."""
        ...

    def worker_states(self) -> list[WorkerState]:
        """The last known state of each worker. Never blocks; may be called in any thread.

        Calling this also requests an update from remote workers; their answers come later.
        """
        ...

    def shutdown(self) -> None:
        """End the workers and free their devices. Work in flight is dropped."""
        ...
