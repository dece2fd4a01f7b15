"""Runs assignments as calls to Ray actors, one actor per worker.

Stage outputs pass from actor to actor as object references; the driver fetches the small report of every call and
the finished mp4, nothing else. Retries and placement are the driver's: Ray restarts and retries nothing by itself,
because only the driver knows which clip was running and may be the one that kills workers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError

from ltx_dist.cluster.ray_workers import Hire, RayWorkers, cause
from ltx_dist.engine.executor import Joined, Left
from ltx_dist.engine.outputs import Outputs
from ltx_dist.pipeline.payloads import EncodedVideo, StageOutput
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.work import Assignment, Completion, Failure, StageReport, WorkerState
from ltx_dist.worker.spec import WorkerSpec
from ltx_dist.worker.stage_worker import StageWorker

FETCH_SECONDS = 120.0
"""Seconds for a few megabytes from another node; one that takes longer counts as lost."""

DEAD = (RayActorError, OutOfMemoryError)
"""What a call to a dead actor raises. OutOfMemoryError (from Ray's memory monitor) is not a RayActorError."""

STATE_SECONDS = 0.5
"""Minimum seconds between two polls of the workers' states, made only on request: by the live view, at a rate that
people can follow, or by the check for hung workers, which is rarer."""

STATES_A_SECOND = 100
"""Maximum number of workers polled per second: each takes the driver half a millisecond, and it has a batch to run."""


@dataclass(frozen=True, slots=True)
class _Call:
    """outputs: a reference per request."""

    assignment: Assignment
    requests: Sequence[RenderRequest]
    outputs: Sequence[Any]
    submitted: float


class RayExecutor:
    """Runs one actor per worker, each with its GPU from Ray; call `connect` first.

    worker_class: what an actor is made of, from its spec. hire: the worker for a GPU that joins the cluster meanwhile.
    known_nodes: those that joined before; None for all that are there now. environment: variables of actors' processes.
    """

    def __init__(
        self,
        specs: Sequence[WorkerSpec],
        worker_class: type[Any] = StageWorker,
        hire: Hire | None = None,
        known_nodes: frozenset[str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._epoch = time.monotonic()
        self._workers = RayWorkers(specs, hire, worker_class, known_nodes, environment)
        self._calls: dict[Any, _Call] = {}
        self._orphans: list[tuple[_Call, Failure | None]] = []
        self._culprits: dict[str, set[Assignment]] = {}
        self._recipe = specs[0].family.recipe
        self._outputs = Outputs[Any](self._recipe)
        self._changes: list[Joined | Left] = []
        self._states = {spec.worker.worker_id: WorkerState(spec.worker.worker_id) for spec in specs}
        self._state_calls: dict[Any, str] = {}
        self._next_states = 0.0
        self._are_states_wanted = True

    def submit(self, assignment: Assignment, requests: Sequence[RenderRequest]) -> None:
        actor = self._workers.actors.get(assignment.worker_id)
        if actor is None:  # it died since the scheduler chose it
            self._orphans.append((_Call(assignment, requests, (), self._now()), Failure.QUEUED))
            return
        # Inputs are separate arguments: Ray fetches those for the actor, but not references inside a list.
        inputs = self._outputs.inputs(assignment.stage, requests)
        group = {"concurrency_group": "host"} if self._recipe[assignment.stage].runs_on == "host" else {}
        run = actor.run.options(num_returns=len(requests) + 1, **group)
        *outputs, report = run.remote(assignment.stage, requests, *inputs, keys=assignment.keys)
        self._calls[report] = _Call(assignment, requests, outputs, self._now())

    def wait(self, timeout: float) -> list[Completion]:
        # The first call waits for any, the second takes all that are there: with num_returns=len alone, Ray would
        # wait for the slowest; with 1 alone it would hide the others.
        reports = list(self._calls)
        if refs := [*reports, *self._workers.refs()]:
            ray.wait(refs, num_returns=1, timeout=timeout, fetch_local=False)
        else:
            time.sleep(timeout)
        ready, _ = ray.wait(reports, num_returns=len(reports), timeout=0, fetch_local=False) if reports else ([], [])
        ended = [self._complete(report, self._calls.pop(report)) for report in ready]
        completions = [completion for completion in ended if completion is not None]
        self._ask_states()
        for change in self._workers.poll():
            self._changes.append(change)
            if isinstance(change, Left):
                completions += self._end_orphans(change)
        return completions

    def changes(self) -> list[Joined | Left]:
        changes, self._changes = self._changes, []
        return changes

    @property
    def expected(self) -> frozenset[str]:
        return self._workers.expected

    def replace(self, worker_id: str) -> None:
        self._workers.start(worker_id)

    def end_worker(self, worker_id: str, failure: Failure, reason: str, culprit: Assignment | None = None) -> None:
        if culprit is not None:
            self._culprits.setdefault(worker_id, set()).add(culprit)
        self._workers.end(worker_id, failure, reason)

    def fetcher(self, request_id: str, stage: str) -> Callable[[], StageOutput]:
        output = self._outputs.get(request_id, stage)
        return lambda: ray.get(output, timeout=FETCH_SECONDS)

    def restore(self, request_id: str, stage: str, output: StageOutput) -> None:
        self._outputs.put(request_id, stage, ray.put(output))

    def release(self, request_id: str) -> None:
        self._outputs.release(request_id)

    def worker_states(self) -> list[WorkerState]:
        self._are_states_wanted = True
        return list(self._states.values())

    def shutdown(self) -> None:
        self._workers.close()
        self._calls.clear()
        self._orphans.clear()
        self._outputs.clear()

    def _now(self) -> float:
        return time.monotonic() - self._epoch

    def _complete(self, report_ref: Any, call: _Call) -> Completion | None:
        """The completion; None if the worker is lost: its assignments end when it is known what became of it."""
        finished = self._now()
        try:
            report: StageReport = ray.get(report_ref)
            stage = call.assignment.stage
            video: EncodedVideo | None = None
            if report.error is None and stage == self._recipe.of(call.requests[0])[-1]:
                video = ray.get(call.outputs[0], timeout=FETCH_SECONDS)
        except DEAD as error:
            self._orphans.append((call, None))
            self._workers.bury(call.assignment.worker_id, error)
            return None
        except RayError as error:
            # Its input or output was on a node that is lost.
            report = StageReport(0.0, error=f"{type(error).__name__}: {cause(error)}")
            return Completion(call.assignment, call.submitted, finished, report, Failure.INPUT_LOST)
        if report.device_lost:
            self._orphans.append((call, None))
            reason = report.error or "its device is lost"
            self.end_worker(call.assignment.worker_id, Failure.CRASH, reason, call.assignment)
            return None
        # Only durations cross machines, so clocks of different nodes need not agree.
        started = max(call.submitted, finished - report.seconds)
        if report.error is None:
            self._outputs.ended(stage, call.requests, call.outputs)
        return Completion(call.assignment, started, finished, report, report.failure, video, submitted=call.submitted)

    def _end_orphans(self, left: Left) -> list[Completion]:
        """End all assignments of a lost worker, whether or not their calls have failed yet."""
        of_it = [(report, call) for report, call in self._calls.items() if call.assignment.worker_id == left.worker_id]
        for report, call in of_it:
            del self._calls[report]
            self._orphans.append((call, None))
        ended = [orphan for orphan in self._orphans if orphan[0].assignment.worker_id == left.worker_id]
        self._orphans = [orphan for orphan in self._orphans if orphan not in ended]
        self._states.pop(left.worker_id, None)
        self._state_calls = {call: name for call, name in self._state_calls.items() if name != left.worker_id}
        report, culprits = StageReport(0.0, error=left.reason), self._culprits.pop(left.worker_id, None)

        def failure_of_orphan(call: _Call) -> Failure:
            return left.failure if culprits is None or call.assignment in culprits else Failure.QUEUED

        return [
            Completion(call.assignment, call.submitted, self._now(), report, failure or failure_of_orphan(call))
            for call, failure in ended
        ]

    def _ask_states(self) -> None:
        """Read the states that have arrived, and if wanted poll the workers that have answered. Never waits."""
        calls = list(self._state_calls)
        ready, _ = ray.wait(calls, num_returns=len(calls), timeout=0) if calls else ([], [])
        for call in ready:
            worker_id = self._state_calls.pop(call)
            try:
                self._states[worker_id] = ray.get(call)
            except DEAD as error:
                self._states.pop(worker_id, None)
                self._workers.bury(worker_id, error)
        if not self._are_states_wanted or self._now() < self._next_states:
            return
        self._are_states_wanted = False
        self._next_states = self._now() + max(STATE_SECONDS, len(self._workers.actors) / STATES_A_SECOND)
        asked = set(self._state_calls.values())
        for worker_id, actor in self._workers.actors.items():
            if worker_id not in asked:
                self._state_calls[actor.state.options(concurrency_group="control").remote()] = worker_id
