"""The loop of a batch: schedule, submit, wait, update; one terminal result for each request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ltx_dist.execution.executor import Executor
from ltx_dist.scheduling.scheduler import Outcome, Scheduler
from ltx_dist.types import Completion, RenderRequest, RenderResult, Stage

if TYPE_CHECKING:
    from ltx_dist.execution.resumption import Resumption

TICK_SECONDS = 0.5
"""How long a wait may last before signals are served."""


class Renderer:
    """Drives a scheduler and an executor. `completions` is everything that ended so far, in order."""

    def __init__(
        self,
        scheduler: Scheduler,
        executor: Executor,
        resumption: Resumption | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._executor = executor
        self._resumption = resumption
        self._resumed: dict[str, Stage] = {}
        self._history: dict[str, list[Completion]] = {}
        self.completions: list[Completion] = []

    def render(self, requests: Sequence[RenderRequest]) -> Iterator[RenderResult]:
        """Yield exactly one result for each request, as it ends.

        Workers get their next work before a result is handed out, so what the caller does with it (writing the
        file) does not keep them waiting. Raises WorkerStartError when a worker does not come up.
        """
        by_id = {request.request_id: request for request in requests}
        for request in requests:
            self._add(request)
        self._submit(by_id)
        while not self._scheduler.is_finished:
            assert self._scheduler.num_in_flight, "nothing in flight and requests are open: the scheduler stalled"
            outcomes: list[tuple[Outcome, Completion]] = []
            for completion in self._executor.wait(TICK_SECONDS):
                self._record(completion, by_id)
                outcomes += [(outcome, completion) for outcome in self._scheduler.update(completion)]
            self._submit(by_id)
            for outcome, completion in outcomes:
                request = by_id[outcome.request_id]
                yield self._result(request, outcome, completion)
                if self._resumption is not None and outcome.status == "done":
                    self._resumption.forget(request)

    def _add(self, request: RenderRequest) -> None:
        finished = self._resumption.finished_stage(request) if self._resumption is not None else None
        following = finished.following if finished is not None else None
        if finished is None or following is None:
            self._scheduler.add([request.request_id])
        else:
            self._resumed[request.request_id] = finished
            self._scheduler.add([request.request_id], following)

    def _submit(self, by_id: dict[str, RenderRequest]) -> None:
        for assignment in self._scheduler.schedule():
            request = by_id[assignment.request_id]
            finished = self._resumed.pop(request.request_id, None)
            if finished is not None and self._resumption is not None:
                self._executor.restore(request.request_id, self._resumption.load(request, finished))
            self._executor.submit(assignment, request)

    def _record(self, completion: Completion, by_id: dict[str, RenderRequest]) -> None:
        assignment = completion.assignment
        hands_on = completion.error is None and assignment.stage.following is not None
        if self._resumption is not None and hands_on:
            fetch = self._executor.fetcher(assignment.request_id)
            self._resumption.keep(by_id[assignment.request_id], assignment.stage, fetch)
        # Without the mp4: it is handed out once, and a batch may have a hundred thousand.
        self.completions.append(replace(completion, video=None))
        self._history.setdefault(completion.assignment.request_id, []).append(completion)

    def _result(self, request: RenderRequest, outcome: Outcome, completion: Completion) -> RenderResult:
        self._executor.release(request.request_id)
        completions = tuple(self._history.pop(request.request_id, ()))
        video = completion.video if outcome.status == "done" else None
        return RenderResult(request, outcome.status, completions, video, outcome.error)
