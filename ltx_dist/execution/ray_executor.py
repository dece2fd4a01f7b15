"""Runs assignments as calls to Ray actors, one actor a worker.

Stage outputs pass from actor to actor as object references; the driver fetches the small report of every call and
the finished mp4, nothing else. Retries and placement are the driver's: Ray restarts and retries nothing by itself,
because only the driver knows which clip was running and may be the one that kills workers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError
from ray.util.placement_group import remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from ltx_dist.execution.executor import WorkerStartError, failure_of
from ltx_dist.execution.ray_cluster import reserve
from ltx_dist.execution.worker import StageWorker, WorkerSpec
from ltx_dist.types import (
    Assignment,
    Completion,
    EncodedVideo,
    Failure,
    RenderRequest,
    Stage,
    StageOutput,
    StageReport,
    WorkerState,
)


@dataclass(frozen=True, slots=True)
class _Call:
    assignment: Assignment
    output: Any
    submitted: float


class RayExecutor:
    """One actor a worker, each with its GPU from Ray; `connect` comes first.

    worker_class: what an actor is made of, from its spec.
    """

    def __init__(self, specs: Sequence[WorkerSpec], worker_class: type[Any] = StageWorker) -> None:
        self._epoch = time.monotonic()
        self._groups = reserve(specs)
        # Beside the thread that runs stages, one answers `state` and one a slot waits for its mp4.
        slots = max((spec.worker.video_slots for spec in specs), default=0)
        actor_class = ray.remote(concurrency_groups={"control": 1, "video": max(1, slots)})(worker_class)
        self._actors = {
            spec.worker.worker_id: actor_class.options(
                # Torch's threads are set by the worker: a CPU request would only limit how many actors fit a machine.
                num_cpus=0,
                num_gpus=spec.worker.num_gpus,
                max_restarts=0,
                max_task_retries=0,
                scheduling_strategy=self._strategy(spec),
            ).remote(spec)
            for spec in specs
        }
        # An answer proves that the constructor is through; a worker that is killed while it loads answers never.
        self._starting = {
            actor.state.options(concurrency_group="control").remote(): worker_id
            for worker_id, actor in self._actors.items()
        }
        self._calls: dict[Any, _Call] = {}
        self._outputs: dict[str, Any] = {}
        self._states = {worker_id: WorkerState(worker_id) for worker_id in self._actors}
        self._state_calls: dict[Any, str] = {}

    def _strategy(self, spec: WorkerSpec) -> Any:
        group = self._groups.get(spec.worker.worker_id)
        return "SPREAD" if group is None else PlacementGroupSchedulingStrategy(group)

    def submit(self, assignment: Assignment, request: RenderRequest) -> None:
        actor = self._actors[assignment.worker_id]
        if assignment.stage is Stage.ENCODE_VIDEO:
            output, report = actor.finish_video.options(num_returns=2, concurrency_group="video").remote(request)
        else:
            payload = self._outputs.get(assignment.request_id)
            output, report = actor.run.options(num_returns=2).remote(assignment.stage, request, payload)
        self._calls[report] = _Call(assignment, output, time.monotonic() - self._epoch)

    def wait(self, timeout: float) -> list[Completion]:
        if not self._calls:
            return []
        # The first call waits for any, the second takes all that are there: with num_returns=len alone, Ray would
        # wait for the slowest; with 1 alone it would hide the others.
        reports = list(self._calls)
        ray.wait([*reports, *self._starting], num_returns=1, timeout=timeout, fetch_local=False)
        self._check_starting()
        ready, _ = ray.wait(reports, num_returns=len(reports), timeout=0, fetch_local=False)
        completions = [self._complete(report, self._calls.pop(report)) for report in ready]
        # A worker that is lost is lost with all that it had.
        lost = {c.assignment.worker_id: c for c in completions if c.worker_lost}
        for report, call in list(self._calls.items()):
            if (one := lost.get(call.assignment.worker_id)) is not None:
                del self._calls[report]
                completions.append(replace(one, assignment=call.assignment, started=call.submitted))
        return completions

    def fetcher(self, request_id: str) -> Callable[[], StageOutput]:
        output = self._outputs[request_id]
        return lambda: ray.get(output)

    def restore(self, request_id: str, output: StageOutput) -> None:
        self._outputs[request_id] = ray.put(output)

    def release(self, request_id: str) -> None:
        self._outputs.pop(request_id, None)

    def worker_states(self) -> list[WorkerState]:
        """As last heard; asks again those that have answered, and never waits."""
        calls = list(self._state_calls)
        ready, _ = ray.wait(calls, num_returns=len(calls), timeout=0) if calls else ([], [])
        for call in ready:
            worker_id = self._state_calls.pop(call)
            try:
                self._states[worker_id] = ray.get(call)
            except RayError:
                self._states.pop(worker_id, None)
        asked = set(self._state_calls.values())
        for worker_id, actor in list(self._actors.items()):
            if worker_id not in asked:
                self._state_calls[actor.state.options(concurrency_group="control").remote()] = worker_id
        return list(self._states.values())

    def shutdown(self) -> None:
        for actor in self._actors.values():
            ray.kill(actor)
        for group in self._groups.values():
            remove_placement_group(group)
        self._actors.clear()
        self._calls.clear()
        self._outputs.clear()

    def _check_starting(self) -> None:
        """Raises WorkerStartError when a worker died before it was up, or when none can find a place."""
        answers = list(self._starting)
        ready, _ = ray.wait(answers, num_returns=len(answers), timeout=0) if answers else ([], [])
        for answer in ready:
            worker_id = self._starting.pop(answer)
            try:
                ray.get(answer)
            except RayError as error:
                raise WorkerStartError(_start_failure(worker_id, error)) from error

    def _complete(self, report_ref: Any, call: _Call) -> Completion:
        finished = time.monotonic() - self._epoch
        try:
            report: StageReport = ray.get(report_ref)
            makes_video = call.assignment.stage in (Stage.DECODE, Stage.ENCODE_VIDEO)
            video: EncodedVideo | None = ray.get(call.output) if makes_video and report.error is None else None
        except RayActorError as error:
            report = StageReport(0.0, error=f"worker {call.assignment.worker_id} died: {_cause(error)}")
            return self._lose(call, finished, report)
        except RayError as error:
            # What it needed, or made, lay on a node that is gone.
            report = StageReport(0.0, error=f"{type(error).__name__}: {_cause(error)}")
            return Completion(call.assignment, call.submitted, finished, report, Failure.INPUT_LOST)
        if report.device_lost:
            return self._lose(call, finished, report)
        # Only durations cross machines, so clocks of different nodes need not agree.
        started = max(call.submitted, finished - report.seconds)
        if report.error is None and not makes_video:
            self._outputs[call.assignment.request_id] = call.output
        return Completion(
            call.assignment, started, finished, report, failure_of(report), video, submitted=call.submitted
        )

    def _lose(self, call: _Call, finished: float, report: StageReport) -> Completion:
        """Nothing may be given to this worker again; its process, if there still is one, ends."""
        worker_id = call.assignment.worker_id
        if worker_id in self._actors:  # it is lost once, perhaps with several assignments
            ray.kill(self._actors.pop(worker_id))
        self._states.pop(worker_id, None)
        return Completion(call.assignment, call.submitted, finished, report, Failure.CRASH)


def _start_failure(worker_id: str, error: RayError) -> str:
    """The worker's own line out of Ray's message, which ends with the traceback of the actor's constructor."""
    ours = [line for line in str(error).splitlines() if "WorkerStartError: " in line]
    return ours[-1].split("WorkerStartError: ", 1)[1] if ours else f"worker {worker_id}: {_cause(error)}"


def _cause(error: RayError) -> str:
    """One line: where it was, and Ray's reason, out of a message of many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    where = [line for line in lines if line.startswith(("ip: ", "pid: "))]
    reason = next((line for line in lines if line.startswith("The actor is dead")), lines[-1] if lines else "")
    return ", ".join([*where, reason])
