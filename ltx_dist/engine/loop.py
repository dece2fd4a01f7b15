"""The loop of a batch: schedule, submit, wait, update; one terminal result for each request."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from ltx_dist.engine.deadlines import Deadlines
from ltx_dist.engine.executor import Executor, Joined, Left
from ltx_dist.engine.failures import FailurePolicy
from ltx_dist.engine.standstill import Standstill
from ltx_dist.pipeline.payloads import StageOutput
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.work import Assignment, Completion, Failure, RenderResult
from ltx_dist.pipeline.worker import Worker
from ltx_dist.planning.simulator import OrderRevision, Reorder
from ltx_dist.scheduling.scheduler import Scheduler

TICK_SECONDS = 0.5
"""How long a wait may last before signals are served."""

HANG_LOOK_SECONDS = 3.0
"""Between two looks for hung workers, each of which is asked what it is at: they are given a minute at least."""

ORDER_SECONDS, ORDER_SHARE = 0.005, 0.1
"""Spent at a time on looking for a better order, and of all time: a worker that ends meanwhile waits for that piece."""

Clock = Callable[[], float]


class KeptOutputs(Protocol):
    """Outputs of stages that are kept on disk, for this run and later ones."""

    def made(self, request: RenderRequest) -> frozenset[str]:
        """The stages whose outputs are there, made with the request's settings."""
        ...

    def load(self, request: RenderRequest, stage: str) -> StageOutput | None:
        """The output of a stage, as `made` found it; None if it has gone since or turns out to be damaged."""
        ...

    def keep(self, request: RenderRequest, stage: str, fetch: Callable[[], StageOutput]) -> None:
        """Write down what a stage just made, if it is of any use later, without waiting for it."""
        ...


class WorkersLostError(RuntimeError):
    """No worker is left for a stage. The requests that wait for it are not to blame: another run can go on."""


class BatchLoop:
    """Drives a scheduler and an executor. `completions` is everything that ended so far, in order.

    on_completion: told of each at once, in the loop itself, so it must not take long. on_notice: told in words of
    workers that come and go. is_stopped, is_over: asked at every turn; then nothing new is begun, or all is ended.
    keys: of a request's stages, which are sent along with its assignments.
    bounds: of the queues, asked when a worker joins or changes; on_worker_change is called before with a worker that
    holds its weights in another way than planned. reorder: better orders of what waits, asked when the present one
    is out of date; see `better_orders`.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        executor: Executor,
        resumption: KeptOutputs | None = None,
        keys: Callable[[RenderRequest], Mapping[str, str]] | None = None,
        on_completion: Callable[[Completion], None] | None = None,
        on_notice: Callable[[str], None] | None = None,
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
        self._on_notice = on_notice
        self._is_stopped = is_stopped
        self._is_over = is_over
        self._bounds = bounds
        self._on_worker_change = on_worker_change
        self._reorder = reorder
        self._clock = clock
        self._policy = FailurePolicy()
        self._recipe = scheduler.recipe
        self._deadlines = Deadlines(self._recipe)
        self._standstill = Standstill(clock)
        self._next_hang_look = 0.0
        self._order = OrderRevision()
        self._orders: Iterator[Sequence[str] | None] | None = None
        self._next_order = 0.0
        self._on_disk: dict[str, set[str]] = {}
        self._made: dict[str, set[str]] = {}
        self._by_id: dict[str, RenderRequest] = {}
        self._history: dict[str, list[Completion]] = {}
        self._last_loss: str | None = None
        self.completions: list[Completion] = []

    def render(self, requests: Sequence[RenderRequest]) -> Iterator[RenderResult]:
        """Yield exactly one result for each request, as it ends.

        Workers get their next work before a result is handed out, so what the caller does with it (writing the
        file) does not keep the others waiting. Raises WorkerStartError when a worker does not come up,
        WorkersLostError when all that could be done without the lost workers is done and requests are left,
        SystemicError when the first requests all fail alike, and KeyboardInterrupt when it was stopped.
        """
        self.begin(requests)
        while not self._scheduler.is_finished:
            yield from self.turn()

    def begin(self, requests: Sequence[RenderRequest]) -> None:
        """Take in the requests, and give every worker its first work."""
        for request in requests:
            self._by_id[request.request_id] = request
            self._scheduler.add([request.request_id], self._todo_from_disk(request))
        self._submit()

    def turn(self) -> list[RenderResult]:
        """Wait for something to end, for a moment, and do what follows from it; the requests that are over with it."""
        if self._is_over():
            raise KeyboardInterrupt
        if self._is_stopped():
            self._orders = None
            self._wind_up()
        elif not self._scheduler.num_in_flight and not self._executor.expected:
            self._raise_without_workers()
        due = self._next_order - self._clock() if self._orders else TICK_SECONDS
        completions = self._executor.wait(min(max(due, 0.0), TICK_SECONDS))
        results = [result for completion in completions for result in self._take_in(completion)]
        for change in self._executor.changes():
            self._change(change)
        self._drop_bad_workers(completions)
        self._end_hung_workers()
        if not self._is_stopped():
            self._submit()
            self._put_in_order()
        if not self._scheduler.is_finished:
            self._policy.check_systemic()
        return results

    def _take_in(self, completion: Completion) -> list[RenderResult]:
        """What an ended assignment changes; the results of those of its requests that are over."""
        self._record(completion)
        self._heed(completion)
        assignment = completion.assignment
        if completion.failure is None:
            self._note_made(assignment)
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
            todo = self._todo(self._by_id[name], verdict.from_disk)
            self._scheduler.retry(part, todo, verdict.avoid, verdict.alone, verdict.shares)
        return results

    def _heed(self, completion: Completion) -> None:
        """Pass on what the worker reports of itself, and schedule in waves if its components take turns from now on."""
        name, report = completion.assignment.worker_id, completion.report
        for line in report.notices:
            self._notice(f"worker {name}: {line}")
        if not report.takes_turns or not self._scheduler.has_worker(name):
            return
        worker = self._scheduler.worker(name)
        if worker.residency == "resident":
            changed = replace(worker, residency="time_sliced")
            self._on_worker_change(changed)
            self._scheduler.change_worker(changed, self._bounds() if self._bounds else None)

    def _note_made(self, assignment: Assignment) -> None:
        """Executors hold what these stages made, so they need not run again. Frames, which host stages take, stay with
        their worker; so a clip goes back to its last device stage whichever host stage fails.
        """
        if self._recipe[assignment.stage].runs_on == "device" and self._recipe.hands_on(assignment.stage):
            for name in assignment.request_ids:
                self._made.setdefault(name, set()).add(assignment.stage)

    def _todo(self, request: RenderRequest, from_disk: bool) -> tuple[str, ...]:
        """The stages left to do. Where the node with a request's outputs is lost, only what is on disk counts."""
        if from_disk:
            self._executor.release(request.request_id)
            return self._todo_from_disk(request)
        made = self._made.get(request.request_id, set()) | self._on_disk.get(request.request_id, set())
        return self._recipe.needed(self._recipe.of(request), made)

    def queue_lengths(self) -> dict[str, int]:
        """Requests that wait in front of each device stage; good in any thread."""
        return {stage: self._scheduler.num_queued(stage) for stage in self._recipe.on_device}

    def _change(self, change: Joined | Left) -> None:
        if isinstance(change, Joined):
            name = change.worker.worker_id
            self._deadlines.joined(name, self._clock())
            if not self._scheduler.has_worker(name):
                self._scheduler.add_worker(change.worker, self._bounds() if self._bounds else None)
                self._notice(f"worker {name} joined")
            return
        self._deadlines.left(change.worker_id)
        self._last_loss = change.reason
        is_bad = self._policy.is_bad(change.worker_id) and self._scheduler.can_do_without(change.worker_id)
        if self._scheduler.has_worker(change.worker_id):
            self._scheduler.remove_worker(change.worker_id)
        if is_bad:
            what = "is no longer used, as clip after clip failed on it"
        elif change.can_return:
            self._executor.replace(change.worker_id)
            what = "is being restarted"
        else:
            what = "is lost; the other workers continue"
        self._notice(f"worker {change.worker_id} {what}: {change.reason.splitlines()[0]}")

    def _drop_bad_workers(self, completions: Sequence[Completion]) -> None:
        """End bad workers that are still there: errors alone end no worker."""
        for name in {c.assignment.worker_id for c in completions if c.failure is Failure.ERROR}:
            if self._policy.is_bad(name) and self._scheduler.can_do_without(name):
                self._executor.end_worker(name, Failure.QUEUED, "ended, because several clips in a row failed on it")

    def _end_hung_workers(self) -> None:
        now = self._clock()
        if gap := self._standstill.seconds():
            self._deadlines.stood_still(gap, now)
        if now < self._next_hang_look:
            return
        self._next_hang_look = now + HANG_LOOK_SECONDS
        self._deadlines.saw(self._executor.worker_states(), now)
        for assignment, reason in self._deadlines.overdue(now):
            self._executor.end_worker(assignment.worker_id, Failure.HANG, reason, assignment)

    def _wind_up(self) -> None:
        """Only what ends in a clip continues. Raises KeyboardInterrupt when there is nothing of that left."""
        for assignment in self._scheduler.begin_host_stages():
            self._start(assignment)
        if not any(map(self._ends_in_a_clip, self._deadlines.under_way())):
            raise KeyboardInterrupt

    def _ends_in_a_clip(self, assignment: Assignment) -> bool:
        """Whether no device is needed after this stage."""
        left = self._scheduler.left(assignment.request_ids[0])
        return not set(left[1:]).intersection(self._recipe.on_device)

    def _raise_without_workers(self) -> None:
        stage = self._scheduler.unhosted_stage
        assert stage is not None, "nothing in flight and requests are open: the scheduler stalled"
        if self._last_loss is None:
            # No worker was made for it, because all that it makes was on disk when the run began.
            raise WorkersLostError(
                f"the saved input of a clip is missing or damaged, and no worker of this run can {stage}"
            )
        raise WorkersLostError(f"no worker is left that can run {stage}; the last one: {self._last_loss}")

    def _notice(self, line: str) -> None:
        if self._on_notice is not None:
            self._on_notice(line)

    def _todo_from_disk(self, request: RenderRequest) -> tuple[str, ...]:
        """The stages left to do of a request for which the executor holds nothing. What they read of outputs on disk is
        loaded when a worker takes it."""
        name, wanted = request.request_id, self._recipe.of(request)
        made = frozenset[str]() if self._resumption is None else self._resumption.made(request)
        todo = self._recipe.needed(wanted, made)
        read = {source for stage in todo for source in self._recipe[stage].inputs}
        self._made.pop(name, None)
        self._on_disk[name] = {stage for stage in made if stage in read and stage in wanted}
        return todo

    def _submit(self) -> None:
        while assignments := self._scheduler.schedule(self._executor.expected):
            for assignment in assignments:
                self._start(assignment)

    def _put_in_order(self) -> None:
        """A little at a time, and after the workers have got their next work: the whole takes up to seconds."""
        started = self._clock()
        if self._reorder is None or started < self._next_order:
            return
        if not any(self.queue_lengths().values()):
            self._orders = None
            return
        if self._order.is_due(self._scheduler):
            self._orders = iter(self._reorder(self._scheduler))
        while self._orders and self._clock() < started + ORDER_SECONDS:
            try:
                if order := next(self._orders):
                    self._scheduler.reorder(order)
            except StopIteration:
                self._orders = None
        self._next_order = self._clock() + (self._clock() - started) / ORDER_SHARE

    def _start(self, assignment: Assignment) -> None:
        requests: list[RenderRequest] = []
        for part in assignment.parts:
            request = self._by_id[part.request_ids[0]]
            if self._restore(request, assignment.stage):
                requests.append(request)
            else:
                self._scheduler.retry(part, self._todo(request, from_disk=True))
        if requests:
            names = tuple(request.request_id for request in requests)
            assignment = replace(
                assignment, request_ids=names, keys=tuple(map(self._keys, requests)) if self._keys else ()
            )
            self._deadlines.begin(assignment, requests, self._clock())
            self._executor.submit(assignment, requests)

    def _restore(self, request: RenderRequest, stage: str) -> bool:
        """Hand the executor the stage's inputs that are on disk. False: one of them is there no longer."""
        on_disk = self._on_disk.get(request.request_id, set())
        for source in on_disk.intersection(self._recipe[stage].inputs):
            assert self._resumption is not None
            output = self._resumption.load(request, source)
            if output is None:
                return False
            on_disk.remove(source)
            self._made.setdefault(request.request_id, set()).add(source)
            self._executor.restore(request.request_id, source, output)
        return True

    def _record(self, completion: Completion) -> None:
        assignment = completion.assignment
        self._deadlines.end(completion)
        as_planned = not completion.report.changes_pixels
        kept = self._recipe[assignment.stage].keeps != "nothing" and completion.error is None and as_planned
        if self._resumption is not None and kept:
            for name in assignment.request_ids:
                self._resumption.keep(
                    self._by_id[name], assignment.stage, self._executor.fetcher(name, assignment.stage)
                )
        # Without the mp4: it is handed out once, and a batch may have a hundred thousand.
        self.completions.append(replace(completion, video=None))
        if self._on_completion is not None:
            self._on_completion(self.completions[-1])
        for name in assignment.request_ids:
            self._history.setdefault(name, []).append(completion)

    def _result(self, request_id: str, completion: Completion, error: str | None) -> RenderResult:
        request = self._by_id[request_id]
        self._executor.release(request_id)
        self._on_disk.pop(request_id, None)
        self._made.pop(request_id, None)
        completions = tuple(self._history.pop(request_id, ()))
        if error is not None:
            return RenderResult(request, "failed", completions, error=error)
        return RenderResult(request, "done", completions, completion.video)
