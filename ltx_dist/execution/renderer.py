"""The loop of a batch: schedule, submit, wait, update; one terminal result for each request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from ltx_dist.execution.executor import Executor
from ltx_dist.scheduling.scheduler import Outcome, Scheduler
from ltx_dist.types import Completion, RenderRequest, RenderResult, WorkerState

TICK_SECONDS = 0.5
"""How long a wait may last before the live view is refreshed and signals are served."""


class Renderer:
    """Drives a scheduler and an executor. `completions` is everything that ended so far, in order."""

    def __init__(
        self,
        scheduler: Scheduler,
        executor: Executor,
        watch: Callable[[Sequence[WorkerState]], None] | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._executor = executor
        self._watch = watch
        self._history: dict[str, list[Completion]] = {}
        self.completions: list[Completion] = []

    def render(self, requests: Sequence[RenderRequest]) -> Iterator[RenderResult]:
        """Yield exactly one result for each request, as it ends.

        Workers get their next work before a result is handed out, so what the caller does with it (writing the
        file) does not keep them waiting. Raises WorkerStartError when a worker does not come up.
        """
        by_id = {request.request_id: request for request in requests}
        self._scheduler.add(by_id)
        self._submit(by_id)
        while not self._scheduler.is_finished:
            assert self._scheduler.num_in_flight, "nothing in flight and requests are open: the scheduler stalled"
            outcomes: list[tuple[Outcome, Completion]] = []
            for completion in self._executor.wait(TICK_SECONDS):
                self._record(completion)
                outcomes += [(outcome, completion) for outcome in self._scheduler.update(completion)]
            self._submit(by_id)
            if self._watch is not None:
                self._watch(self._executor.worker_states())
            for outcome, completion in outcomes:
                yield self._result(by_id[outcome.request_id], outcome, completion)

    def _submit(self, by_id: dict[str, RenderRequest]) -> None:
        for assignment in self._scheduler.schedule():
            self._executor.submit(assignment, by_id[assignment.request_id])

    def _record(self, completion: Completion) -> None:
        # Without the mp4: it is handed out once, and a batch may have a hundred thousand.
        self.completions.append(replace(completion, video=None))
        self._history.setdefault(completion.assignment.request_id, []).append(completion)

    def _result(self, request: RenderRequest, outcome: Outcome, completion: Completion) -> RenderResult:
        self._executor.release(request.request_id)
        completions = tuple(self._history.pop(request.request_id, ()))
        video = completion.video if outcome.status == "done" else None
        return RenderResult(request, outcome.status, completions, video, outcome.error)
