"""What the renderer asks of whatever runs assignments: in this process, or as Ray actors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ltx_dist.types import Assignment, Completion, Failure, RenderRequest, StageOutput, StageReport, WorkerState


class WorkerStartError(RuntimeError):
    """A worker did not come up: its weights or its device are of no use to any clip, so the run ends. One line."""


class Executor(Protocol):
    """Keeps each request's latest stage output itself: conditioning and latents never pass through the caller."""

    def submit(self, assignment: Assignment, request: RenderRequest) -> None:
        """Start, or remember to start, a stage. The worker has no other assignment in flight."""
        ...

    def wait(self, timeout: float) -> list[Completion]:
        """The assignments that ended, at least one if any ends within `timeout` seconds.

        Raises WorkerStartError when a worker did not come up.
        """
        ...

    def fetcher(self, request_id: str) -> Callable[[], StageOutput]:
        """A call that brings the request's latest output to this process; good after `release`, in any thread."""
        ...

    def restore(self, request_id: str, output: StageOutput) -> None:
        """Take an output of an earlier run as this request's latest."""
        ...

    def release(self, request_id: str) -> None:
        """Forget the outputs of a request that has its terminal result."""
        ...

    def worker_states(self) -> list[WorkerState]:
        """What each worker does at the moment, as last heard. Never blocks, and is good in any thread."""
        ...

    def shutdown(self) -> None:
        """End the workers and free their devices. Work in flight is dropped."""
        ...


def failure_of(report: StageReport) -> Failure | None:
    """How a stage ended, as its worker tells it: after a device is lost, its process is of no use any more."""
    if report.device_lost:
        return Failure.CRASH
    return None if report.error is None else Failure.ERROR
