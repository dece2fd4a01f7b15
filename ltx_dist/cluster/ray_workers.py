"""Starts, monitors, confirms dead and replaces the actors of a run, one per worker, each with its GPU from Ray.

Ray restarts nothing by itself (`max_restarts=0`): the driver decides what runs again and where. An actor goes

    starting -> up -> buried (until its process has certainly ended) -> gone -> perhaps starting again
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayActorError, RayError
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from ltx_dist.cluster.ray_cluster import reserve, reserve_one
from ltx_dist.cluster.ray_nodes import Nodes
from ltx_dist.cluster.ray_postmortem import Home, Remains, examine, home
from ltx_dist.engine.deadlines import Standstill
from ltx_dist.engine.executor import Joined, Left, WorkerStartError
from ltx_dist.pipeline.work import Failure
from ltx_dist.placement.inventory import DeviceInfo
from ltx_dist.worker.spec import WorkerSpec
from ltx_dist.worker.stage_worker import StageWorker

START_SECONDS = 1800.0
"""Seconds for a worker to load its models: 26 GB over a network file system take minutes."""

EXAMINE_SECONDS = 30.0
"""Seconds to wait for a node's answer about a dead worker."""

MAX_STARTS = 3
"""Maximum number of starts in a row at which a worker may die; transient problems of Ray are over by then."""

Hire = Callable[[DeviceInfo, int], WorkerSpec | None]
"""Returns a worker for a GPU that joined, or None if the run, which has this many workers, takes no more."""


@dataclass(slots=True)
class _Buried:
    remains: Any
    home: Home
    failure: Failure
    reason: str
    since: float


class RayWorkers:
    """The actors of a run, by worker. `actors` may be called at once: Ray lets calls wait for the constructor to end.

    environment: variables for the actors' processes, which others of the cluster may not have.
    """

    def __init__(
        self,
        specs: Sequence[WorkerSpec],
        hire: Hire | None = None,
        worker_class: type = StageWorker,
        known_nodes: frozenset[str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._specs = {spec.worker.worker_id: spec for spec in specs}
        self._hire, self._class = hire, worker_class
        self._environment = environment
        self._groups: dict[str, PlacementGroup] = reserve(specs)
        self._nodes = Nodes(known_nodes)
        self.actors: dict[str, Any] = {}
        self._homes: dict[str, Home] = {}
        self._starting: dict[Any, tuple[str, float]] = {}
        self._buried: dict[str, _Buried] = {}
        self._num_starts: dict[str, int] = {}
        self._was_any_up = False
        self._early: list[Joined | Left] = []
        self._refused: set[str] = set()
        self._standstill = Standstill()
        for worker_id in self._specs:
            self.start(worker_id)

    def start(self, worker_id: str) -> None:
        spec = self._specs[worker_id]
        group = self._groups.get(worker_id)
        # Beside the thread that runs device stages, one answers `state` and one per slot runs host stages.
        groups = {"control": 1, "host": spec.worker.host_slots}
        actor = (
            ray.remote(concurrency_groups=groups)(self._class)  # pyright: ignore[reportCallIssue]
            .options(
                # Torch's threads are set by the worker: a CPU request would only limit how many actors fit a machine.
                num_cpus=0,
                num_gpus=spec.worker.num_gpus,
                max_restarts=0,
                max_task_retries=0,
                runtime_env={"env_vars": dict(self._environment)} if self._environment else None,
                scheduling_strategy="SPREAD" if group is None else PlacementGroupSchedulingStrategy(group),
            )
            .remote(spec)
        )
        self.actors[worker_id] = actor
        # An answer proves that the constructor has ended; a worker that is killed while it loads never answers.
        self._starting[actor.__ray_call__.remote(home)] = worker_id, time.monotonic()

    def refs(self) -> list[Any]:
        """References that a wait should end for."""
        return [*self._starting, *(buried.remains for buried in self._buried.values())]

    @property
    def expected(self) -> frozenset[str]:
        """Workers that are starting."""
        return frozenset(worker_id for worker_id, _ in self._starting.values())

    def poll(self) -> list[Joined | Left]:
        """Changes since the last call. Raises WorkerStartError if a worker cannot start and none ever was up."""
        self._grant(self._standstill.seconds())
        changes, self._early = [*self._early, *self._started(), *self._examined()], []
        if self._hire is not None:
            if self._refused and any(isinstance(change, Left) and not change.can_return for change in changes):
                self._nodes.look_again(self._refused)
                self._refused = set()
            for gpu in self._nodes.new_gpus():
                # Workers that are being examined may come back, so they keep their devices.
                if (spec := self._hire(gpu, len(self.actors) + len(self._buried))) is not None:
                    self._add(spec)
                elif gpu.node_id is not None:
                    self._refused.add(gpu.node_id)
        return changes

    def _grant(self, seconds: float) -> None:
        """Extend deadlines by the driver's standstill: answers that came meanwhile are still to be read."""
        if seconds:
            self._starting = {answer: (name, since + seconds) for answer, (name, since) in self._starting.items()}
            for buried in self._buried.values():
                buried.since += seconds

    def bury(self, worker_id: str, error: RayActorError | OutOfMemoryError) -> None:
        """Record that the worker is dead. Its loss is reported once the reason is known and its process is gone."""
        if worker_id not in self.actors or worker_id in self.expected:
            return  # known already, or it never was up: then its start tells
        lost = getattr(error, "preempted", False) or isinstance(error, ActorUnavailableError)
        self._end(worker_id, Failure.NODE_LOST if lost else Failure.CRASH, f"worker {worker_id} died: {cause(error)}")

    def end(self, worker_id: str, failure: Failure, reason: str) -> None:
        """Kill a worker, unless it is lost or ending already."""
        if worker_id in self.expected:  # it may be up, with its answer not read yet
            self._early += self._started()
        if worker_id in self.actors and worker_id in self._homes:
            self._end(worker_id, failure, reason)

    def close(self) -> None:
        self._nodes.close()
        for actor in self.actors.values():
            ray.kill(actor)
        for group in self._groups.values():
            remove_placement_group(group)
        self.actors.clear()

    def _add(self, spec: WorkerSpec) -> None:
        worker = spec.worker
        self._specs[worker.worker_id] = spec
        self._groups[worker.worker_id] = reserve_one(worker)
        self.start(worker.worker_id)

    def _end(self, worker_id: str, failure: Failure, reason: str) -> None:
        ray.kill(self.actors.pop(worker_id))
        where = self._homes.pop(worker_id)
        self._buried[worker_id] = _Buried(examine(where), where, failure, reason, time.monotonic())

    def _started(self) -> list[Joined | Left]:
        changes: list[Joined | Left] = []
        answers = list(self._starting)
        ready, _ = ray.wait(answers, num_returns=len(answers), timeout=0) if answers else ([], [])
        for answer in answers:
            worker_id, since = self._starting[answer]
            if answer not in ready:
                if time.monotonic() - since > START_SECONDS:
                    reason = f"worker {worker_id} has not loaded its models within {START_SECONDS:.0f} s"
                    changes.append(self._not_started(answer, reason, None))
                continue
            try:
                self._homes[worker_id] = ray.get(answer)
            except RayError as error:
                changes.append(self._not_started(answer, start_failure(worker_id, error), error))
                continue
            del self._starting[answer]
            self._num_starts[worker_id] = 0
            self._was_any_up = True
            changes.append(Joined(self._specs[worker_id].worker))
        return changes

    def _not_started(self, answer: Any, reason: str, error: RayError | None) -> Left:
        """End the run if no worker ever started and this was the last: the weights must be wrong.

        While others are still starting it is this worker's device that may be wrong, and they render without it.
        """
        worker_id, _ = self._starting.pop(answer)
        ray.kill(self.actors.pop(worker_id))
        raised = "WorkerStartError: " in str(error)
        num_starts = self._num_starts[worker_id] = self._num_starts.get(worker_id, 0) + 1
        is_first = not self._was_any_up
        if is_first and not self._starting and (raised or num_starts >= MAX_STARTS):
            raise WorkerStartError(reason) from error
        # An error of its constructor would recur; only a process that died may do better next time.
        can_return = num_starts < MAX_STARTS and not (is_first and raised)
        return Left(worker_id, Failure.QUEUED, reason, can_return)

    def _examined(self) -> list[Left]:
        ready: list[Left] = []
        for worker_id, buried in list(self._buried.items()):
            done, _ = ray.wait([buried.remains], timeout=0)
            if not done and time.monotonic() - buried.since < EXAMINE_SECONDS:
                continue
            del self._buried[worker_id]
            ready.append(self._leave(worker_id, buried, is_answered=bool(done)))
        return ready

    def _leave(self, worker_id: str, buried: _Buried, is_answered: bool) -> Left:
        spec = self._specs[worker_id]
        try:
            remains: Remains = ray.get(buried.remains) if is_answered else Remains(False, "")
        except RayError:
            remains = Remains(False, "")
        if not self._nodes.is_alive(buried.home.node_id):
            if (group := self._groups.pop(worker_id, None)) is not None:
                remove_placement_group(group)
            # One without a GPU of its own can start on any node that is left.
            return Left(worker_id, Failure.NODE_LOST, f"{buried.reason} (its node is gone)", spec.worker.num_gpus == 0)
        reason = f"{buried.reason}\n{remains.log}" if remains.log else buried.reason
        if not remains.is_gone:
            reason += f"\nits process {buried.home.pid} did not end, so its device is not used again"
        return Left(worker_id, buried.failure, reason, can_return=remains.is_gone)


def start_failure(worker_id: str, error: RayError) -> str:
    """The worker's own error line from Ray's message, which ends with the constructor's traceback."""
    ours = [line for line in str(error).splitlines() if "WorkerStartError: " in line]
    return ours[-1].split("WorkerStartError: ", 1)[1] if ours else f"worker {worker_id}: {cause(error)}"


def cause(error: RayError) -> str:
    """One line from Ray's message of many: where the actor was, and the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    where = [line for line in lines if line.startswith(("ip: ", "pid: "))]
    reason = next((line for line in lines if line.startswith("The actor is dead")), lines[-1] if lines else "")
    return ", ".join([*where, reason])
