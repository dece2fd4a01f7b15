"""What an idle worker takes next: of which stage, and how many requests at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import ceil, inf

from ltx_dist.estimates.costs import Costs
from ltx_dist.pipeline.stages import STAGES, Stage
from ltx_dist.pipeline.worker import Worker
from ltx_dist.scheduling.fleet import Fleet, Group
from ltx_dist.scheduling.queues import Queues

SHARED: frozenset[Stage] = frozenset({Stage.ENCODE_TEXT, Stage.DENOISE})
"""Stages of which several requests may share a pass. Decoding takes the most memory, and one clip fills a device."""


@dataclass(slots=True)
class Left:
    """What a batch has still to do of each stage: work, in the costs' own unit, and the number of requests."""

    costs: Costs
    work: dict[Stage, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    number: dict[Stage, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))

    def count(self, request_ids: Iterable[str], stages: Iterable[Stage], sign: int) -> None:
        """The requests have these stages before them (+1), or no more (-1)."""
        stages = tuple(stages)
        for request_id in request_ids:
            for stage in stages:
                self.work[stage] += sign * self.costs.work(request_id, stage)
                self.number[stage] += sign

    @property
    def total(self) -> float:
        return sum(self.work.values())


class Choice:
    """Reads what the scheduler keeps, and changes none of it. `now` is what completions tell of the time."""

    def __init__(self, costs: Costs, fleet: Fleet, queues: Queues, left: Left) -> None:
        self._costs = costs
        self._fleet = fleet
        self._queues = queues
        self._left = left

    def stage(self, worker: Worker, group: Group, now: float) -> Stage | None:
        """None where nothing is ready for the worker, or what is ready had better be left to others."""
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
            eligible, key=lambda stage: (group.loaded not in (None, stage), not self._feeds_others(stage), rank[stage])
        )

    def number(self, worker: Worker, stage: Stage, group: Group, now: float) -> int:
        """How many requests may share the worker's next pass: `batch_size` of it at most.

        Only those that are ready, so nothing waits for more to come; only as many as have room downstream, so that the
        bounds hold. Of what can be begun now it leaves idle workers theirs, and of all that is left every worker its
        own: else some would be idle at the end while one has several to do.
        """
        if stage not in SHARED or worker.batch_size == 1:
            return 1
        ready = min(self._queues.num_ready(stage), self._room_after(stage, group))
        left = self._left.number[stage] / self._fleet.num_hosts(stage)
        fair = ceil(min(ready / self._fleet.num_idle(stage), left))
        return max(1, min(worker.batch_size, fair, int(min(self._most(worker, stage, now), ready))))

    def _feeds_others(self, stage: Stage) -> bool:
        """Whether workers that cannot do this stage themselves may soon wait for what it makes."""
        following = stage.following
        return following is not None and self._queues.num_ready(following) < self._fleet.fed_by[stage]

    def _room_after(self, stage: Stage, group: Group) -> int:
        """How many requests may be begun that would have room for their output."""
        return int(group.has_slot) if stage.following is None else self._queues.room_after(stage, stage.following)

    def _most(self, worker: Worker, stage: Stage, now: float) -> float:
        """How many requests like the next this worker ends before faster ones would have ended them and all others."""
        position = STAGES.index(stage)
        faster = self._fleet.faster(worker, position)
        if not faster:
            return inf
        work, rate = self._costs.work(self._queues.first(stage), stage), self._fleet.kind(worker).rates[position]
        others_free = min(
            (max(kind.ends[0] - now, 0.0) if kind.ends else 0.0) + work / kind.rates[position] for kind in faster
        )
        others_end = self._left.work[stage] / (self._fleet.capacity[position] - rate)
        return max(others_free, others_end) * rate / work if work else inf
