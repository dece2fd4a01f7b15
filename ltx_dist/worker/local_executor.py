"""Runs assignments in this process, one after another. Tests compare Ray's results with those of this plain path.

A crash of a worker ends this process, and a stage that hangs can only be ended from outside; the next run resumes where
this one stopped. Workers that can be replaced need separate processes, which is what Ray is for. Host stages run beside
the device stages, in threads.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

from ltx_dist.engine.executor import Joined, Left
from ltx_dist.engine.outputs import Outputs
from ltx_dist.pipeline.payloads import StageOutput
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.work import Assignment, Completion, Failure, StageReport, WorkerState
from ltx_dist.worker.spec import WorkerSpec
from ltx_dist.worker.stage_worker import StageWorker


class _Call(NamedTuple):
    assignment: Assignment
    requests: Sequence[RenderRequest]


class LocalExecutor:
    """An executor whose `submit` queues an assignment and whose `wait` runs one. It keeps only one device busy.

    worker_class: makes a worker from its spec.
    """

    def __init__(
        self, specs: Sequence[WorkerSpec], worker_class: Callable[[WorkerSpec], StageWorker] = StageWorker
    ) -> None:
        self._epoch = time.monotonic()
        self._workers = {spec.worker.worker_id: worker_class(spec) for spec in specs}
        self._recipe = specs[0].family.recipe
        self._submitted: deque[_Call] = deque()
        self._outputs = Outputs[StageOutput](self._recipe)
        self._threads = ThreadPoolExecutor(sum(spec.worker.host_slots for spec in specs))
        self._ended: list[Completion] = []
        self._changes: list[Joined | Left] = [Joined(spec.worker) for spec in specs]
        self._on_host: dict[Future[tuple[Any, ...]], tuple[_Call, float]] = {}

    def submit(self, assignment: Assignment, requests: Sequence[RenderRequest]) -> None:
        if assignment.worker_id not in self._workers:
            now = time.monotonic() - self._epoch
            report = StageReport(0.0, error=f"worker {assignment.worker_id} is gone")
            self._ended.append(Completion(assignment, now, now, report, Failure.QUEUED))
        elif self._recipe[assignment.stage].runs_on == "host":
            worker, inputs = self._workers[assignment.worker_id], self._outputs.inputs(assignment.stage, requests)
            future = self._threads.submit(worker.run, assignment.stage, requests, *inputs, keys=assignment.keys)
            self._on_host[future] = _Call(assignment, requests), time.monotonic() - self._epoch
        else:
            self._submitted.append(_Call(assignment, requests))

    def wait(self, timeout: float) -> list[Completion]:
        """Run the oldest assignment to its end, however long that takes; if none is queued, wait for a host stage."""
        if self._submitted:
            completions = [self._run(self._submitted.popleft()), *self._ended_on_host(timeout=0)]
        else:
            completions = self._ended_on_host(timeout)
        for completion in completions:
            if completion.worker_lost:
                lost = completion.assignment
                self.end_worker(lost.worker_id, Failure.CRASH, completion.error or "", lost)
        completions += self._ended
        self._ended = []
        return completions

    def _run(self, call: _Call) -> Completion:
        worker = self._workers[call.assignment.worker_id]
        started = time.monotonic() - self._epoch
        inputs = self._outputs.inputs(call.assignment.stage, call.requests)
        result = worker.run(call.assignment.stage, call.requests, *inputs, keys=call.assignment.keys)
        return self._complete(call, started, result)

    def _ended_on_host(self, timeout: float) -> list[Completion]:
        done, _ = wait(self._on_host, timeout, FIRST_COMPLETED)
        return [self._complete(*self._on_host.pop(future), future.result()) for future in done]

    def _complete(self, call: _Call, started: float, result: tuple[Any, ...]) -> Completion:
        *outputs, report = result
        stage, video = call.assignment.stage, None
        if report.error is None:
            self._outputs.ended(stage, call.requests, outputs)
            if stage == self._recipe.of(call.requests[0])[-1]:
                (video,) = outputs
        finished = time.monotonic() - self._epoch
        return Completion(call.assignment, started + report.load_seconds, finished, report, report.failure, video)

    def changes(self) -> list[Joined | Left]:
        changes, self._changes = self._changes, []
        return changes

    @property
    def expected(self) -> frozenset[str]:
        return frozenset()

    def replace(self, worker_id: str) -> None:
        raise AssertionError("no worker of this process can return")

    def end_worker(self, worker_id: str, failure: Failure, reason: str, culprit: Assignment | None = None) -> None:
        """Stop using the worker: its assignments end; a host stage that still runs is abandoned.

        No worker here is ended for a hang: an assignment without progress is only waiting for its turn.
        """
        if failure is Failure.HANG:
            return
        if self._workers.pop(worker_id, None) is None:
            return
        self._changes.append(Left(worker_id, failure, reason, can_return=False))
        calls = [*self._submitted, *(call for call, _ in self._on_host.values())]
        ended = [call.assignment for call in calls if call.assignment.worker_id == worker_id]
        self._submitted = deque(call for call in self._submitted if call.assignment not in ended)
        self._on_host = {future: item for future, item in self._on_host.items() if item[0].assignment not in ended}
        now = time.monotonic() - self._epoch
        self._ended += [
            Completion(a, now, now, StageReport(0.0, error=reason), failure if culprit in (None, a) else Failure.QUEUED)
            for a in ended
        ]

    def fetcher(self, request_id: str, stage: str) -> Callable[[], StageOutput]:
        output = self._outputs.get(request_id, stage)
        return lambda: output

    def restore(self, request_id: str, stage: str, output: StageOutput) -> None:
        self._outputs.put(request_id, stage, output)

    def release(self, request_id: str) -> None:
        self._outputs.release(request_id)

    def worker_states(self) -> list[WorkerState]:
        return [worker.state() for worker in self._workers.values()]

    def shutdown(self) -> None:
        self._threads.shutdown(wait=True)
        self._workers.clear()
        self._outputs.clear()
