"""The workers of a run by kind: those of a kind are interchangeable, so a choice is made for all of them at once.

A cluster has few kinds and may have a thousand workers: nothing here looks at each worker for a decision.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ltx_dist.estimates.bounds import fluid, rates
from ltx_dist.estimates.costs import Costs, Work
from ltx_dist.pipeline.stages import STAGES, Stage
from ltx_dist.pipeline.worker import Residency, Worker

TIE = 0.999
"""Stages that earn a worker this share of what its best one does are as good as the best."""


class Trait(NamedTuple):
    """What makes workers interchangeable."""

    stages: tuple[Stage, ...]
    device: str
    threads: int | None
    residency: Residency
    video_slots: int
    batch_size: int


class Group(NamedTuple):
    """Idle workers among whom there is nothing to choose: one kind, the same stage loaded, a video slot free or not."""

    kind: int
    loaded: Stage | None
    has_slot: bool


@dataclass(slots=True)
class Kind:
    """worker: any one of them. rates: of STAGES, 0 for what is not hosted. rank: of its stages, smaller is better.

    number: its place among kinds. speed: the sum of its rates. ends: when work in flight is predicted to end, a heap.
    """

    number: int
    worker: Worker
    count: int = 0
    rates: tuple[float, float, float] = (0.0, 0.0, 0.0)
    speed: float = 0.0
    rank: dict[Stage, tuple[bool, int]] = field(default_factory=dict[Stage, tuple[bool, int]])
    ends: list[float] = field(default_factory=list[float])


class Fleet:
    """Keeps workers by kind, idle ones by group, and what each stage earns a kind.

    fed_by: of a stage, the workers that run the next one and depend on others for what it makes.
    """

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self._workers: dict[str, Worker] = {}
        self._kinds: list[Kind] = []
        self._number_of_trait: dict[Trait, int] = {}
        self._kind_of: dict[str, Kind] = {}
        self._idle: dict[Group, list[tuple[int, str]]] = {}
        self._group_of: dict[str, Group] = {}
        self._num_idle: Counter[Group] = Counter()
        self._number: dict[str, int] = {}
        self.capacity = [0.0, 0.0, 0.0]
        self.fed_by = dict.fromkeys(STAGES, 0)

    def __contains__(self, worker_id: str) -> bool:
        return worker_id in self._workers

    def __getitem__(self, worker_id: str) -> Worker:
        return self._workers[worker_id]

    @property
    def hosted(self) -> set[Stage]:
        """Stages that some worker hosts."""
        return {stage for kind in self._kinds if kind.count for stage in kind.worker.stages}

    def add(self, workers: Iterable[Worker]) -> None:
        for worker in workers:
            assert worker.worker_id not in self._workers, worker
            self._workers[worker.worker_id] = worker
            self._number.setdefault(worker.worker_id, len(self._number))
            number = self._number_of_trait.setdefault(_trait(worker), len(self._kinds))
            if number == len(self._kinds):
                self._kinds.append(Kind(number, worker))
            self._kind_of[worker.worker_id] = kind = self._kinds[number]
            kind.count += 1

    def remove(self, worker_id: str) -> None:
        self._leave_group(worker_id)
        del self._workers[worker_id]
        self._kind_of[worker_id].count -= 1

    def kind(self, worker: Worker) -> Kind:
        return self._kind_of[worker.worker_id]

    def plan(self, left: Work) -> None:
        """Rank every kind's stages by what they earn with this much work left: the prices of the fluid optimum.

        A card that can only decode gets the decodes that larger cards would do as well, because these earn more by
        denoising. Between stages that earn the same, the one furthest downstream is first.
        """
        kinds = [kind for kind in self._kinds if kind.count]
        for kind in kinds:
            kind.rates = rates(kind.worker, self._costs)
            kind.speed = sum(kind.rates)
        counts: dict[tuple[float, float, float], int] = {}
        for kind in kinds:
            counts[kind.rates] = counts.get(kind.rates, 0) + kind.count
        prices = fluid(left, counts).prices
        self.capacity = [sum(rate[stage] * count for rate, count in counts.items()) for stage in range(3)]
        self.fed_by = {
            stage: sum(kind.count for kind in kinds if _only_follows(kind.worker, stage)) for stage in STAGES
        }
        for kind in kinds:
            earned = [price * rate for price, rate in zip(prices, kind.rates, strict=True)]
            kind.rank = {s: (earned[STAGES.index(s)] < TIE * max(earned), -STAGES.index(s)) for s in kind.worker.stages}

    def set_idle(self, worker_id: str, loaded: Stage | None, has_slot: bool) -> None:
        """The worker waits for work, or still does and its group has changed."""
        worker = self._workers[worker_id]
        group = Group(self._kind_of[worker_id].number, loaded if worker.residency != "resident" else None, has_slot)
        if self._group_of.get(worker_id) != group:
            self._leave_group(worker_id)
            self._group_of[worker_id] = group
            self._num_idle[group] += 1
            heapq.heappush(self._idle.setdefault(group, []), (self._number[worker_id], worker_id))

    def hosts(self, stage: Stage) -> frozenset[str]:
        """The workers of a stage; looks at each of them, so it is for what is rare."""
        return frozenset(name for name, worker in self._workers.items() if stage in worker.stages)

    def idle_workers(self) -> list[Worker]:
        """All that wait; as rare as `hosts`."""
        return [self._workers[name] for name in self._workers if name in self._group_of]

    def idle_groups(self) -> list[Group]:
        """Every group in which a worker may wait; the fastest kinds first, so that the choice is theirs."""
        return sorted(self._idle, key=lambda group: -self._kinds[group.kind].speed)

    def first(self, group: Group) -> Worker | None:
        """The waiting worker of the group that was added first. Entries of workers that left the group are dropped."""
        waiting = self._idle.get(group, [])
        while waiting:
            worker_id = waiting[0][1]
            if self._group_of.get(worker_id) == group:
                return self._workers[worker_id]
            heapq.heappop(waiting)
        self._idle.pop(group, None)
        return None

    def set_busy(self, worker_id: str, now: float, end: float) -> None:
        """The worker has work, predicted to end then."""
        self._leave_group(worker_id)
        ends = self._kind_of[worker_id].ends
        while ends and ends[0] <= now:
            heapq.heappop(ends)
        heapq.heappush(ends, end)

    def _leave_group(self, worker_id: str) -> None:
        if (group := self._group_of.pop(worker_id, None)) is not None:
            self._num_idle[group] -= 1
            if not self._num_idle[group]:
                del self._num_idle[group]

    def num_hosts(self, stage: Stage) -> int:
        return sum(kind.count for kind in self._kinds if stage in kind.worker.stages)

    def num_idle(self, stage: Stage) -> int:
        """Waiting workers that host a stage."""
        return sum(n for group, n in self._num_idle.items() if stage in self._kinds[group.kind].worker.stages)

    def faster(self, worker: Worker, position: int) -> Sequence[Kind]:
        """Kinds that do the stage at this position of STAGES in less time than this worker."""
        rate = self._kind_of[worker.worker_id].rates[position]
        return [kind for kind in self._kinds if kind.rates[position] > rate and kind.count]


def _only_follows(worker: Worker, stage: Stage) -> bool:
    return stage.following in worker.stages and stage not in worker.stages


def _trait(worker: Worker) -> Trait:
    return Trait(
        worker.stages, worker.device_name, worker.threads, worker.residency, worker.video_slots, worker.batch_size
    )
