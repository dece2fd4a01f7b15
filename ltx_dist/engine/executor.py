"""What the batch loop asks of whatever runs assignments: in this process, or as Ray actors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ltx_dist.pipeline.payloads import StageOutput
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.work import Assignment, Completion, Failure, WorkerState
from ltx_dist.pipeline.worker import Worker


class WorkerStartError(RuntimeError):
    """A worker did not come up: its weights or its device are of no use to any clip, so the run ends. One line."""


@dataclass(frozen=True, slots=True)
class Joined:
    """A worker is up and has run nothing yet: one of the first, one that was replaced, or one on a node that joined."""

    worker: Worker


@dataclass(frozen=True, slots=True)
class Left:
    """A worker is gone, and what it was running has ended with this failure in the same `wait`.

    reason: for people. can_return: `replace` can start it again.
    """

    worker_id: str
    failure: Failure
    reason: str
    can_return: bool


class Executor(Protocol):
    """Holds the outputs of stages by request and stage: conditioning and latents never pass through the caller."""

    def submit(self, assignment: Assignment, requests: Sequence[RenderRequest]) -> None:
        """Start, or remember to start, a stage of these requests. The worker has no other in flight but of mp4s.

        On a worker that is gone, which the caller may not know yet, it ends as QUEUED.
        """
        ...

    def wait(self, timeout: float) -> list[Completion]:
        """The assignments that ended, at least one if any ends within `timeout` seconds.

        Raises WorkerStartError when a worker did not come up.
        """
        ...

    def changes(self) -> list[Joined | Left]:
        """Workers that came up or went since this was last asked, in order."""
        ...

    @property
    def expected(self) -> frozenset[str]:
        """Workers that are on their way. Each comes, or leaves, in bounded time."""
        ...

    def replace(self, worker_id: str) -> None:
        """Start a worker that left and can return: a process of its own on the same device, with nothing in it."""
        ...

    def end_worker(self, worker_id: str, failure: Failure, reason: str, culprit: Assignment | None = None) -> None:
        """Kill a worker. It leaves in one of the next `wait`s, as do its assignments, with this failure.

        culprit: the one that the failure is of, where that is known; the others then end as QUEUED, charged to nobody.
        """
        ...

    def fetcher(self, request_id: str, stage: str) -> Callable[[], StageOutput]:
        """A call that brings the output of a stage that just ended to this process; good after `release`, in any
        thread."""
        ...

    def restore(self, request_id: str, stage: str, output: StageOutput) -> None:
        """Take the output of a stage from an earlier run."""
        ...

    def release(self, request_id: str) -> None:
        """Forget the outputs of a request that has its terminal result."""
        ...

    def worker_states(self) -> list[WorkerState]:
        """What each worker does, as last heard. Never blocks, and is good in any thread.

        To ask is a wish for news: a worker on another machine is asked because of it, and its answer comes later.
        """
        ...

    def shutdown(self) -> None:
        """End the workers and free their devices. Work in flight is dropped."""
        ...
