"""One pass of a stage on a worker, how it ended, and what became of a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from ltx_dist.pipeline.payloads import EncodedVideo
from ltx_dist.pipeline.request import RenderRequest


@dataclass(frozen=True, slots=True)
class Assignment:
    """One pass of a stage on one worker, for one request or for several equal ones that share it.

    The unit that the scheduler decides on and an executor runs. keys: for each request, the keys of its stages; the
    batch loop adds them, and comparisons ignore them.
    """

    request_ids: tuple[str, ...]
    stage: str
    worker_id: str
    keys: tuple[Mapping[str, str], ...] = field(default=(), compare=False, repr=False)

    @property
    def parts(self) -> tuple[Assignment, ...]:
        """One assignment per request, for passes whose requests end differently."""
        return tuple(replace(self, request_ids=(request_id,), keys=()) for request_id in self.request_ids)

    @property
    def clips(self) -> str:
        """Its requests in words: `a`, or `a and 3 more`."""
        first, *others = self.request_ids
        return f"{first} and {len(others)} more" if others else first


class Failure(StrEnum):
    """How an assignment failed. `engine/failures.py` decides what follows.

    ERROR: the stage raised, and the worker is fine. CRASH: while it ran, its worker died or its device became unusable.
    HANG: it made no progress for too long, so the worker was ended. QUEUED: its worker died before it began. NODE_LOST:
    its worker went with its node, or was preempted. INPUT_LOST: what the stage needed, or made, was on a lost node. All
    but ERROR and INPUT_LOST take the worker with them.
    """

    ERROR = "error"
    CRASH = "crash"
    HANG = "hang"
    QUEUED = "queued"
    NODE_LOST = "node_lost"
    INPUT_LOST = "input_lost"


@dataclass(frozen=True, slots=True)
class StageReport:
    """A worker's report of an assignment; small, so it always travels to the driver.

    seconds: spent in the stage itself, for all its requests together, on the worker's monotonic clock. load_seconds:
        spent reading or moving weights before it. latents_sha256: digest of each request's latents, in order; empty if
        the stage has none. peak_bytes: peak device memory of torch during the stage; None if the device does not count
        it (CPU). made_on: the device and its libraries, which decide low-order bits.
    memory_refused: the device had too little memory for something in this stage, now or earlier in the worker's life.
        cuDNN may then have taken an algorithm that needs less, which it keeps: low-order bits may differ.
    fallback: what it took after the stage ran out of memory as planned (worker/oom_fallbacks.py); None if it did not.
    changes_pixels: the fallback gives other pixels than planned.
    takes_turns: since memory ran out, components take turns on a device that was planned to hold all of them.
    notices: lines for people that the worker has not reported before.
    device_lost: the error has left the worker's device unusable, so the worker must not be given anything again.
    """

    seconds: float
    load_seconds: float = 0.0
    error: str | None = None
    latents_sha256: tuple[str, ...] = ()
    peak_bytes: int | None = None
    made_on: str = ""
    memory_refused: bool = False
    device_lost: bool = False
    fallback: str | None = None
    changes_pixels: bool = False
    takes_turns: bool = False
    notices: tuple[str, ...] = ()

    @property
    def failure(self) -> Failure | None:
        """How the stage failed; None if it did not. A worker whose device is lost counts as crashed: it is of no more
        use."""
        if self.device_lost:
            return Failure.CRASH
        return None if self.error is None else Failure.ERROR


@dataclass(frozen=True, slots=True)
class Completion:
    """An assignment that ended. Times are seconds since the batch started, on the driver's clock.

    `failure` is None if it ended well; else `error` says what happened. `video` is set by the last stage only.
    submitted: when it was given to its worker; None if that is when it started.
    """

    assignment: Assignment
    started: float
    finished: float
    report: StageReport
    failure: Failure | None = None
    video: EncodedVideo | None = None
    submitted: float | None = None

    @property
    def error(self) -> str | None:
        return self.report.error

    @property
    def worker_lost(self) -> bool:
        return self.failure not in (None, Failure.ERROR, Failure.INPUT_LOST)


@dataclass(frozen=True, slots=True)
class RenderResult:
    """The one terminal result of a request: its video, or the error that ended it."""

    request: RenderRequest
    status: Literal["done", "failed"]
    completions: tuple[Completion, ...]
    video: EncodedVideo | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class WorkerState:
    """The state of a worker, for views. `stage` is None while it waits.

    request_ids: the requests that share its current pass. step of num_steps: denoising steps done; 0 of 0 in the other
    stages. is_loading: it reads or moves the stage's weights. attempt: number of the assignment's attempt, from 0; each
    one that runs out of memory is followed by another. components: those whose weights are on the device. memory_bytes:
    what the worker has allocated on its device; on a CPU the memory of its process; None if unknown.
    """

    worker_id: str
    stage: str | None = None
    request_ids: tuple[str, ...] = ()
    step: int = 0
    num_steps: int = 0
    components: tuple[str, ...] = ()
    memory_bytes: int | None = None
    is_loading: bool = False
    attempt: int = 0
