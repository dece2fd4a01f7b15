"""Runs assignments as calls to Ray actors, one actor a worker. The only file that imports ray.

Stage outputs pass from actor to actor as object references; the driver fetches the small report of every call and
the finished mp4, nothing else. Retries and placement are the driver's: Ray restarts and retries nothing by itself,
because only the driver knows which clip was running and may be the one that kills workers.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ltx_dist.devices import local_inventory
from ltx_dist.execution.executor import WorkerStartError
from ltx_dist.execution.worker import StageWorker, WorkerSpec
from ltx_dist.scheduling.placement import Inventory
from ltx_dist.types import STAGES, Assignment, Completion, RenderRequest, StageOutput, StageReport, WorkerState

ANSWER_SECONDS = 5.0
"""A cluster's head that does not take a connection within this is not there."""

NODE_SECONDS = 60.0
"""A node may have to start a Python process before it can answer."""


@dataclass(frozen=True, slots=True)
class _Call:
    assignment: Assignment
    output: Any
    submitted: float


def check_address(address: str) -> None:
    """Raises ValueError, within seconds, when nothing listens there; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if "//" in address or not host or not port.isdigit():
        raise ValueError(
            f"--address: {address!r} is not HOST:PORT of a cluster's head (its port is 6379 if not chosen); "
            "an http:// address is for `ray job submit`"
        )
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        raise ValueError(f"--address: nothing answers at {address} ({error.strerror or error})") from None


def connect(address: str | None) -> Inventory:
    """Join the cluster at `address`, or start one on this machine if None, and say what it has to give now.

    Raises ValueError when the cluster does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if address is None:
        # Said here, because Ray warns of a mode that it chose by itself.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        options |= {"address": "local", "include_dashboard": False}
    else:
        check_address(address)
        options["address"] = address
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError) as error:
        raise ValueError(f"--address: cannot join the cluster at {address}: {str(error).splitlines()[0]}") from None
    total, free = ray.cluster_resources(), ray.available_resources()
    if total.get("GPU", 0) >= 1 > free.get("GPU", 0):
        raise ValueError(f"--address: all {int(total['GPU'])} GPUs of the cluster are in use; wait for one to be free")
    return Inventory(int(free.get("GPU", 0)), _smallest_gpu_memory(), max(1, int(total.get("CPU", 1))))


def _smallest_gpu_memory() -> int | None:
    """Bytes, asked of every node that has GPUs; None when none of them can say."""
    ask = ray.remote(num_cpus=0, max_retries=0)(lambda: local_inventory().gpu_memory_bytes)
    answers = [
        ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote()
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("GPU", 0) > 0
    ]
    ready, _ = ray.wait(answers, num_returns=len(answers), timeout=NODE_SECONDS) if answers else ([], [])
    return min((memory for memory in ray.get(ready) if memory is not None), default=None)


def disconnect() -> None:
    """Leave the cluster, and end it if `connect` started it."""
    ray.shutdown()


class RayExecutor:
    """One actor a worker, each with its GPU from Ray; `connect` comes first."""

    def __init__(self, specs: Sequence[WorkerSpec]) -> None:
        self._epoch = time.monotonic()
        # A second concurrency group answers `state` while the first runs a stage.
        actor_class = ray.remote(concurrency_groups={"control": 1})(StageWorker)
        self._actors = {
            spec.worker.worker_id: actor_class.options(
                # Torch's threads are set by the worker: a CPU request would only limit how many actors fit a machine.
                num_cpus=0,
                num_gpus=spec.worker.num_gpus,
                max_restarts=0,
                max_task_retries=0,
                scheduling_strategy="SPREAD",
            ).remote(spec)
            for spec in specs
        }
        self._calls: dict[Any, _Call] = {}
        self._outputs: dict[str, Any] = {}
        self._states = {worker_id: WorkerState(worker_id) for worker_id in self._actors}
        self._state_calls: dict[Any, str] = {}

    def submit(self, assignment: Assignment, request: RenderRequest) -> None:
        actor = self._actors[assignment.worker_id]
        payload = self._outputs.get(assignment.request_id)
        output, report = actor.run.options(num_returns=2).remote(assignment.stage, request, payload)
        self._calls[report] = _Call(assignment, output, time.monotonic() - self._epoch)

    def wait(self, timeout: float) -> list[Completion]:
        if not self._calls:
            return []
        # The first call waits for any, the second takes all that are there: with num_returns=len alone, Ray would
        # wait for the slowest; with 1 alone it would hide the others.
        reports = list(self._calls)
        ray.wait(reports, num_returns=1, timeout=timeout, fetch_local=False)
        ready, _ = ray.wait(reports, num_returns=len(reports), timeout=0, fetch_local=False)
        return [self._complete(report, self._calls.pop(report)) for report in ready]

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
            except RayActorError:
                self._states[worker_id] = WorkerState(worker_id)
        asked = set(self._state_calls.values())
        for worker_id, actor in list(self._actors.items()):
            if worker_id not in asked:
                self._state_calls[actor.state.options(concurrency_group="control").remote()] = worker_id
        return list(self._states.values())

    def shutdown(self) -> None:
        for actor in self._actors.values():
            ray.kill(actor)
        self._actors.clear()
        self._calls.clear()
        self._outputs.clear()

    def _complete(self, report_ref: Any, call: _Call) -> Completion:
        finished = time.monotonic() - self._epoch
        try:
            report: StageReport = ray.get(report_ref)
        except RayActorError as error:
            return self._lost(call, error, finished)
        # Only durations cross machines, so clocks of different nodes need not agree.
        started = max(call.submitted, finished - report.seconds)
        if report.error is not None:
            return Completion(call.assignment, started, finished, report)
        self._outputs[call.assignment.request_id] = call.output
        is_last = call.assignment.stage is STAGES[-1]
        video = ray.get(call.output) if is_last else None
        return Completion(call.assignment, started, finished, report, video=video)

    def _lost(self, call: _Call, error: RayActorError, finished: float) -> Completion:
        """The actor's process is gone. One that never came up is a fault of the set-up, and ends the run."""
        if error.actor_init_failed:
            raise WorkerStartError(_start_failure(error)) from error
        self._actors.pop(call.assignment.worker_id, None)
        self._states.pop(call.assignment.worker_id, None)
        report = StageReport(seconds=0.0, error=f"worker {call.assignment.worker_id} died")
        return Completion(call.assignment, call.submitted, finished, report, worker_lost=True)


def _start_failure(error: RayActorError) -> str:
    """The worker's own line out of Ray's message, which ends with the traceback of the actor's constructor."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    ours = [line for line in lines if "WorkerStartError: " in line]
    return ours[-1].split("WorkerStartError: ", 1)[1] if ours else f"an actor could not start: {lines[-1]}"
