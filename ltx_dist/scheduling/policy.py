"""Decides what an idle worker takes next: which stage, how many requests at once, and who may take a retry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from math import ceil, inf

from ltx_dist.estimates.costs import Costs
from ltx_dist.pipeline.recipe import Recipe
from ltx_dist.pipeline.worker import Worker
from ltx_dist.scheduling.fleet import Fleet, Group
from ltx_dist.scheduling.in_flight import HostSlots, OpenRequests
from ltx_dist.scheduling.queues import Queues, Retry


@dataclass(slots=True)
class RemainingWork:
    """The remaining work of each device stage, in the costs' unit, and its number of requests."""

    stages: Sequence[str]
    costs: Costs
    work: dict[str, float] = field(init=False)
    number: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.work, self.number = dict.fromkeys(self.stages, 0.0), dict.fromkeys(self.stages, 0)

    def count(self, request_id: str, stages: Iterable[str], sign: int) -> None:
        """Add (+1) or remove (-1) these stages of a request."""
        for stage in stages:
            self.work[stage] += sign * self.costs.work(request_id, stage)
            self.number[stage] += sign

    @property
    def total(self) -> float:
        return sum(self.work.values())


class AssignmentPolicy:
    """Reads the scheduler's state without changing it. `now` is the time of the latest completion."""

    def __init__(
        self,
        recipe: Recipe,
        costs: Costs,
        fleet: Fleet,
        queues: Queues,
        requests: OpenRequests,
        remaining: RemainingWork,
    ) -> None:
        self._recipe, self._costs = recipe, costs
        self._fleet, self._queues, self._requests = fleet, queues, requests
        self._remaining = remaining

    def stage(self, worker: Worker, group: Group, now: float) -> str | None:
        """The stage of the worker's next pass. None if nothing is ready for it, or is better left to others."""
        eligible = [
            stage
            for stage in worker.stages
            if self._queues.num_ready(stage)
            and self._room_after(stage, group) > 0
            and self._most(worker, stage, now) >= 1
        ]
        if len(eligible) < 2:
            return eligible[0] if eligible else None
        rank = self._fleet.kind(worker).rank
        return min(
            eligible,
            key=lambda stage: (
                group.must_swap(self._recipe[stage].components), not self._feeds_others(stage), rank[stage],
            ),
        )  # fmt: skip

    def number(self, worker: Worker, stage: str, group: Group, now: float) -> int:
        """Number of requests that may share the worker's next pass: at most its `batch_size`.

        Only those that are ready, so nothing waits for more to come; only as many as have room downstream, so that the
        bounds hold. Of what can be begun now it leaves idle workers theirs, and of all that is left every worker its
        own: else some would be idle at the end while one has several to do.
        """
        if not self._recipe[stage].shares_pass or worker.batch_size == 1:
            return 1
        ready = min(self._queues.num_ready(stage), self._room_after(stage, group))
        left = self._remaining.number[stage] / self._fleet.num_hosts(stage)
        fair = ceil(min(ready / self._fleet.num_idle(stage), left))
        return max(1, min(worker.batch_size, fair, int(min(self._most(worker, stage, now), ready))))

    def _feeds_others(self, stage: str) -> bool:
        """Whether workers that cannot run this stage themselves may soon wait for its output."""
        _, following = self._requests.following(self._queues.first(stage))
        if following is None:
            return False
        return self._queues.num_ready(following) < self._fleet.num_fed(stage, following)

    def _room_after(self, stage: str, group: Group) -> float:
        """Number of requests like the first that may begin because there is room for their output."""
        needs_slot, following = self._requests.following(self._queues.first(stage))
        room = inf if following is None else self._queues.room(following)
        return min(room, group.free_slots) if needs_slot else room

    def _most(self, worker: Worker, stage: str, now: float) -> float:
        """Requests this worker can finish before the faster workers would have finished everything."""
        faster = self._fleet.faster(worker, stage)
        if not faster:
            return inf
        work, rate = self._costs.work(self._queues.first(stage), stage), self._fleet.rate(worker, stage)
        others_free = min((max(kind.ends[0] - now, 0.0) if kind.ends else 0.0) + work / other for kind, other in faster)
        others_end = self._remaining.work[stage] / (self._fleet.total_rate(stage) - rate)
        return max(others_free, others_end) * rate / work if work else inf


class Retries:
    """Tracks workers that have run nothing yet, and those that are reserved for a request that must run alone."""

    def __init__(self, fleet: Fleet, slots: HostSlots, requests: OpenRequests) -> None:
        self._fleet, self._slots, self._requests = fleet, slots, requests
        self._fresh: set[str] = set()
        self._reserved: dict[str, str] = {}

    def add(self, worker_id: str) -> None:
        self._fresh.add(worker_id)

    def remove(self, worker_id: str) -> None:
        self._fresh.discard(worker_id)
        self._reserved.pop(worker_id, None)

    def begin(self, worker_id: str) -> None:
        """Record that the worker has run something."""
        self._fresh.discard(worker_id)

    def reserve(self, worker_id: str, request_id: str) -> None:
        self._reserved[worker_id] = request_id

    def end(self, worker_id: str, request_id: str) -> None:
        """The request has left the worker, host stages and all."""
        if self._reserved.get(worker_id) == request_id:
            del self._reserved[worker_id]

    def is_reserved(self, worker_id: str) -> bool:
        return worker_id in self._reserved

    def worker_for(self, retry: Retry, expected: Set[str]) -> Worker | None:
        """The first idle one that may take it; of those for one that is to be alone, a fresh one."""
        fits = [worker for worker in self._fleet.idle_workers() if self._may_take(worker, retry, expected)]
        if retry.alone:  # the fresh one may have come when others are idle, too
            fits.sort(key=lambda worker: worker.worker_id not in self._fresh)
        return next(iter(fits), None)

    def _may_take(self, worker: Worker, retry: Retry, expected: Set[str]) -> bool:
        name, stage = worker.worker_id, retry.stage
        needs_slot, _ = self._requests.following(retry.request_id)
        if stage not in worker.stages or (needs_slot and not self._slots.num_free(name)):
            return False
        if retry.alone and (self._slots.is_in_use(name) or (expected and name not in self._fresh)):
            return False
        # One on which it did not fail may be starting: worth waiting for.
        return name not in retry.avoid or (self._fleet.hosts(stage) | expected) <= retry.avoid
