"""The loop of a batch: schedule, submit, wait, update; one terminal result for each request."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from ltx_dist.engine.deadlines import Deadlines
from ltx_dist.engine.executor import Executor
from ltx_dist.engine.failures import FailurePolicy
from ltx_dist.engine.order_upkeep import OrderUpkeep
from ltx_dist.engine.outputs import MadeOutputs, SavedOutputs
from ltx_dist.engine.workers import Workers
from ltx_dist.pipeline.payloads import StageOutput
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.work import Assignment, Completion, RenderResult
from ltx_dist.pipeline.worker import Worker
from ltx_dist.planning.simulator import Reorder
from ltx_dist.scheduling.scheduler import Scheduler

TICK_SECONDS = 0.5
"""Maximum seconds of a wait, so that signals are handled."""

Clock = Callable[[], float]


class KeptOutputs(SavedOutputs, Protocol):
    """Outputs of stages that are kept on disk, for this run and later ones."""

    def keep(self, request: RenderRequest, stage: str, fetch: Callable[[], StageOutput]) -> None:
        """Save a stage's output, if it is of use later, without waiting."""
        ...


class BatchLoop:
    """Drives a scheduler and an executor. `completions` is everything that ended so far, in order.

    keys: returns the keys of a request's stages, which are sent along with its assignments.
    on_completion: called with each at once, in the loop itself, so it must not take long. on_notice: called with a line
    for people about each worker that comes or goes. is_stopped, is_over: called in every iteration; once the first is
    True nothing new is begun, once the second is True the batch ends at once. bounds: returns the bounds of the queues;
    called when a worker joins or changes. on_worker_change: called before that with a worker that no longer holds its
    weights as planned. reorder: yields better orders of the waiting requests; called when the present one is out of
    date; see `better_orders`.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        executor: Executor,
        resumption: KeptOutputs | None = None,
        keys: Callable[[RenderRequest], Mapping[str, str]] | None = None,
        on_completion: Callable[[Completion], None] | None = None,
        on_notice: Callable[[str], None] = lambda line: None,
        is_stopped: Callable[[], bool] = lambda: False,
        is_over: Callable[[], bool] = lambda: False,
        bounds: Callable[[], Mapping[str, int]] | None = None,
        on_worker_change: Callable[[Worker], None] = lambda worker: None,
        reorder: Reorder | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._scheduler = scheduler
        self._executor = executor
        self._resumption = resumption
        self._keys = keys
        self._on_completion = on_completion
        self._is_stopped = is_stopped
        self._is_over = is_over
        self._clock = clock
        self._policy = FailurePolicy()
        self._recipe = scheduler.recipe
        self._deadlines = Deadlines(self._recipe)
        self._workers = Workers(
            scheduler, executor, self._policy, self._deadlines, on_notice, bounds, on_worker_change, clock
        )
        self._order = OrderUpkeep(scheduler, reorder, clock)
        self._made = MadeOutputs(scheduler.recipe, executor, resumption)
        self._by_id: dict[str, RenderRequest] = {}
        self._history: dict[str, list[Completion]] = {}
        self.completions: list[Completion] = []

    def render(self, requests: Sequence[RenderRequest]) -> Iterator[RenderResult]:
        """Yield exactly one result for each request, as it ends.

        Workers get their next work before a result is handed out, so what the caller does with it (writing the
        file) does not keep the others waiting. Raises WorkerStartError when a worker does not start,
        WorkersLostError when all that could be done without the lost workers is done and requests are left,
        SystemicError when the first requests all fail alike, and KeyboardInterrupt when the batch was stopped.
        """
        self.begin(requests)
        while not self._scheduler.is_finished:
            yield from self.turn()

    def begin(self, requests: Sequence[RenderRequest]) -> None:
        """Add the requests, and give every worker its first work."""
        for request in requests:
            self._by_id[request.request_id] = request
            self._scheduler.add([request.request_id], self._made.todo_from_disk(request))
        self._submit()

    def turn(self) -> list[RenderResult]:
        """Wait a moment for assignments to end, and handle them. Returns the results of requests that ended."""
        if self._is_over():
            raise KeyboardInterrupt
        if self._is_stopped():
            self._order.stop()
            self._wind_up()
        else:
            self._workers.raise_if_none_is_left()
        due = self._order.due(otherwise=TICK_SECONDS)
        completions = self._executor.wait(min(max(due, 0.0), TICK_SECONDS))
        results = [result for completion in completions for result in self._take_in(completion)]
        for change in self._executor.changes():
            self._workers.take_in(change)
        self._workers.drop_bad(completions)
        self._workers.end_hung()
        if not self._is_stopped():
            self._submit()
            self._order.look()  # after the workers have got their next work
        if not self._scheduler.is_finished:
            self._policy.check_systemic()
        return results

    def _take_in(self, completion: Completion) -> list[RenderResult]:
        """Handle an ended assignment. Returns the results of its requests that ended."""
        self._record(completion)
        self._workers.heed(completion)
        assignment = completion.assignment
        if completion.failure is None:
            self._made.ended(assignment)
            is_done = self._scheduler.update(completion)
            self._policy.succeeded(completion, is_done)
            return [self._result(name, completion, None) for name in assignment.request_ids if is_done]
        hosts, expected = self._scheduler.hosts(assignment), self._executor.expected
        results: list[RenderResult] = []
        for part in assignment.parts:
            (name,) = part.request_ids
            verdict = self._policy.judge(completion, name, hosts, expected)
            if verdict.error is not None:
                self._scheduler.fail(part)
                results.append(self._result(name, completion, verdict.error))
                continue
            todo = self._made.todo(self._by_id[name], verdict.from_disk)
            self._scheduler.retry(part, todo, verdict.avoid, verdict.alone, verdict.shares)
        return results

    def queue_lengths(self) -> dict[str, int]:
        """Number of requests that wait for each device stage; may be called in any thread."""
        return {stage: self._scheduler.num_queued(stage) for stage in self._recipe.on_device}

    def _wind_up(self) -> None:
        """Continue only with what ends in a clip. Raises KeyboardInterrupt when none of that is left."""
        for assignment in self._scheduler.begin_host_stages():
            self._start(assignment)
        if not any(map(self._ends_in_a_clip, self._deadlines.under_way())):
            raise KeyboardInterrupt

    def _ends_in_a_clip(self, assignment: Assignment) -> bool:
        """Whether no device is needed after this stage."""
        left = self._scheduler.left(assignment.request_ids[0])
        return not set(left[1:]).intersection(self._recipe.on_device)

    def _submit(self) -> None:
        while assignments := self._scheduler.schedule(self._executor.expected):
            for assignment in assignments:
                self._start(assignment)

    def _start(self, assignment: Assignment) -> None:
        requests: list[RenderRequest] = []
        for part in assignment.parts:
            request = self._by_id[part.request_ids[0]]
            if self._made.restore(request, assignment.stage):
                requests.append(request)
            else:
                self._scheduler.retry(part, self._made.todo(request, from_disk=True))
        if requests:
            names, keys = tuple(request.request_id for request in requests), self._keys
            assignment = replace(assignment, request_ids=names, keys=tuple(map(keys, requests)) if keys else ())
            self._deadlines.begin(assignment, requests, self._clock())
            self._executor.submit(assignment, requests)

    def _record(self, completion: Completion) -> None:
        assignment = completion.assignment
        self._deadlines.end(completion)
        is_kept = self._recipe[assignment.stage].keeps != "nothing" and completion.error is None
        for name in assignment.request_ids:
            history = self._history.setdefault(name, [])
            history.append(completion)
            # What is made from other pixels than planned is not what its key says, either.
            as_planned = not any(one.report.changes_pixels for one in history)
            if self._resumption is not None and is_kept and as_planned:
                self._resumption.keep(
                    self._by_id[name], assignment.stage, self._executor.fetcher(name, assignment.stage)
                )
        # Without the mp4, which is only needed once: a batch may have a hundred thousand.
        self.completions.append(replace(completion, video=None))
        if self._on_completion is not None:
            self._on_completion(self.completions[-1])

    def _result(self, request_id: str, completion: Completion, error: str | None) -> RenderResult:
        request = self._by_id[request_id]
        self._made.release(request_id)
        completions = tuple(self._history.pop(request_id, ()))
        if error is not None:
            return RenderResult(request, "failed", completions, error=error)
        return RenderResult(request, "done", completions, completion.video)
