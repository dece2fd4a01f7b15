"""The loop of a batch: schedule, submit, wait, update; one terminal result for each request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ltx_dist.execution.executor import Executor
from ltx_dist.execution.failures import FailurePolicy
from ltx_dist.scheduling.scheduler import Scheduler
from ltx_dist.types import STAGES, Completion, RenderRequest, RenderResult, Stage

if TYPE_CHECKING:
    from ltx_dist.execution.resumption import Resumption

TICK_SECONDS = 0.5
"""How long a wait may last before signals are served."""

KEPT = (Stage.ENCODE_TEXT, Stage.DENOISE)
"""Stages whose output is of use to a later run."""


class WorkersLostError(RuntimeError):
    """No worker is left for a stage. The requests that wait for it are not to blame: another run can go on."""


class Renderer:
    """Drives a scheduler and an executor. `completions` is everything that ended so far, in order.

    on_completion: told of each at once, in the loop itself, so it must not take long.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        executor: Executor,
        resumption: Resumption | None = None,
        on_completion: Callable[[Completion], None] | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._executor = executor
        self._resumption = resumption
        self._on_completion = on_completion
        self._policy = FailurePolicy()
        self._on_disk: dict[str, Stage] = {}
        self._history: dict[str, list[Completion]] = {}
        self.completions: list[Completion] = []

    def render(self, requests: Sequence[RenderRequest]) -> Iterator[RenderResult]:
        """Yield exactly one result for each request, as it ends.

        Workers get their next work before a result is handed out, so what the caller does with it (writing the
        file) does not keep the others waiting. Raises WorkerStartError when a worker does not come up, and
        WorkersLostError when all that could be done without the lost workers is done and requests are left.
        """
        by_id = {request.request_id: request for request in requests}
        for request in requests:
            self._scheduler.add([request.request_id], self._first_stage(request))
        self._submit(by_id)
        while not self._scheduler.is_finished:
            if not self._scheduler.num_in_flight:
                self._raise_without_workers()
            completions = self._executor.wait(TICK_SECONDS)
            results = [result for c in completions if (result := self._take_in(c, by_id)) is not None]
            for worker_id in {c.assignment.worker_id for c in completions if c.worker_lost}:
                self._scheduler.remove_worker(worker_id)
            self._submit(by_id)
            yield from results
            if not self._scheduler.is_finished:
                self._policy.check_systemic()

    def _take_in(self, completion: Completion, by_id: dict[str, RenderRequest]) -> RenderResult | None:
        """What an ended assignment changes; the result of its request if that is over."""
        self._record(completion, by_id)
        assignment = completion.assignment
        request = by_id[assignment.request_id]
        if completion.failure is None:
            is_done = self._scheduler.update(completion)
            self._policy.succeeded(completion, is_done)
            return self._result(request, completion, None) if is_done else None
        verdict = self._policy.judge(completion, self._scheduler.hosts(assignment.stage))
        if verdict.error is not None:
            self._scheduler.fail(assignment)
        else:
            stage = self._goes_on_at(request, assignment.stage, verdict.from_disk)
            self._scheduler.retry(assignment, stage, verdict.avoid, verdict.alone)
        return None if verdict.error is None else self._result(request, completion, verdict.error)

    def _goes_on_at(self, request: RenderRequest, stage: Stage, from_disk: bool) -> Stage:
        """Frames are lost with their worker, latents are not; with a node, only what is on disk is left."""
        if not from_disk:
            return Stage.DECODE if stage is Stage.ENCODE_VIDEO else stage
        self._executor.release(request.request_id)
        return self._first_stage(request)

    def queue_lengths(self) -> dict[Stage, int]:
        """Requests that wait in front of each stage; good in any thread."""
        return {stage: self._scheduler.num_queued(stage) for stage in STAGES}

    def _raise_without_workers(self) -> None:
        stage = self._scheduler.unhosted_stage
        assert stage is not None, "nothing in flight and requests are open: the scheduler stalled"
        last = next((c.error for c in reversed(self.completions) if c.worker_lost), None)
        if last is None:
            # No worker was made for it, because all that it makes was on disk when the run began.
            raise WorkersLostError(f"what was kept of a clip is gone or damaged, and no worker of this run can {stage}")
        raise WorkersLostError(f"no worker is left that can run {stage}; the last one: {last}")

    def _first_stage(self, request: RenderRequest) -> Stage:
        """Where a request goes on for which the executor holds nothing; its input is loaded when a worker takes it."""
        first = STAGES[0] if self._resumption is None else self._resumption.first_stage(request)
        if first is not STAGES[0]:
            self._on_disk[request.request_id] = first
        return first

    def _submit(self, by_id: dict[str, RenderRequest]) -> None:
        while assignments := self._scheduler.schedule():
            for assignment in assignments:
                request = by_id[assignment.request_id]
                if self._restore(request):
                    self._executor.submit(assignment, request)
                else:
                    self._scheduler.retry(assignment, self._first_stage(request))

    def _restore(self, request: RenderRequest) -> bool:
        """Hand the executor what is on disk of a request, if that is where its input is. False: it is there no more."""
        stage = self._on_disk.pop(request.request_id, None)
        if stage is None:
            return True
        assert self._resumption is not None
        output = self._resumption.load(request, stage)
        if output is None:
            return False
        self._executor.restore(request.request_id, output)
        return True

    def _record(self, completion: Completion, by_id: dict[str, RenderRequest]) -> None:
        assignment = completion.assignment
        if self._resumption is not None and assignment.stage in KEPT and completion.error is None:
            fetch = self._executor.fetcher(assignment.request_id)
            self._resumption.keep(by_id[assignment.request_id], assignment.stage, fetch)
        # Without the mp4: it is handed out once, and a batch may have a hundred thousand.
        self.completions.append(replace(completion, video=None))
        if self._on_completion is not None:
            self._on_completion(self.completions[-1])
        self._history.setdefault(completion.assignment.request_id, []).append(completion)

    def _result(self, request: RenderRequest, completion: Completion, error: str | None) -> RenderResult:
        self._executor.release(request.request_id)
        completions = tuple(self._history.pop(request.request_id, ()))
        if error is not None:
            return RenderResult(request, "failed", completions, error=error)
        return RenderResult(request, "done", completions, completion.video)
