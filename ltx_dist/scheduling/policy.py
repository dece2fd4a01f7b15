"""Decides what an idle worker takes next: which stage, and how many requests at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil, inf

from ltx_dist.estimates.costs import Costs
from ltx_dist.pipeline.recipe import Recipe
from ltx_dist.pipeline.worker import Worker
from ltx_dist.scheduling.fleet import Fleet, Group
from ltx_dist.scheduling.in_flight import OpenRequests
from ltx_dist.scheduling.queues import Queues


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
        """How many requests may share the worker's next pass: `batch_size` of it at most.

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
