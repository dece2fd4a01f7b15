"""The workers of a run by kind: workers of one kind are interchangeable, so a choice is made for all of them at once.

A cluster has few kinds and may have a thousand workers: nothing here looks at each worker for a decision.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ltx_dist.estimates.bounds import Rates, fluid, rates
from ltx_dist.estimates.costs import Costs, Work
from ltx_dist.pipeline.recipe import Recipe
from ltx_dist.pipeline.worker import Residency, Worker

TIE = 0.999
"""Stages that earn a worker at least this share of its best one count as equally good."""


class Trait(NamedTuple):
    """The properties that make workers interchangeable."""

    stages: tuple[str, ...]
    device: str
    threads: int | None
    residency: Residency
    host_slots: int
    batch_size: int


class Group(NamedTuple):
    """Interchangeable idle workers: of one kind, with the same components loaded and as many free slots.

    loaded: of workers whose components take turns; None where nothing is to be swapped.
    """

    kind: int
    loaded: frozenset[str] | None
    free_slots: int

    def must_swap(self, components: Iterable[str]) -> bool:
        """Whether a stage with these components needs a swap."""
        return bool(self.loaded) and not self.loaded.issuperset(components)


@dataclass(slots=True)
class Kind:
    """worker: any one of them. rates: of each device stage, 0 for what is not hosted. rank: of its stages, smaller is
    better. faster: by stage, the kinds that run it in less time, with their rates. number: its place among kinds.
    speed: the sum of its rates. ends: when work in flight is predicted to end, a heap.
    """

    number: int
    worker: Worker
    count: int = 0
    rates: Rates = ()
    speed: float = 0.0
    rank: dict[str, tuple[bool, int]] = field(default_factory=dict[str, tuple[bool, int]])
    faster: dict[str, list[tuple[Kind, float]]] = field(default_factory=dict[str, "list[tuple[Kind, float]]"])
    ends: list[float] = field(default_factory=list[float])


class Fleet:
    """Keeps workers by kind, idle ones by group, and what each stage earns a kind."""

    def __init__(self, recipe: Recipe, costs: Costs) -> None:
        self._stages, self._costs = recipe.on_device, costs
        self._position = {stage: position for position, stage in enumerate(self._stages)}
        self._before_host = {stage for stage in self._stages if recipe.host_stages_after(stage)}
        self._workers: dict[str, Worker] = {}
        self._kinds: list[Kind] = []
        self._number_of_trait: dict[Trait, int] = {}
        self._kind_of: dict[str, Kind] = {}
        self._idle: dict[Group, list[tuple[int, str]]] = {}
        self._group_of: dict[str, Group] = {}
        self._num_idle: Counter[Group] = Counter()
        self._number: dict[str, int] = {}
        self._num_fed: dict[tuple[str, str], int] = {}
        self.capacity = [0.0] * len(self._stages)

    def __contains__(self, worker_id: str) -> bool:
        return worker_id in self._workers

    def __getitem__(self, worker_id: str) -> Worker:
        return self._workers[worker_id]

    @property
    def hosted(self) -> set[str]:
        """Stages that some worker hosts."""
        return {stage for kind in self._kinds if kind.count for stage in kind.worker.stages}

    def add(self, worker: Worker) -> None:
        assert worker.worker_id not in self._workers, worker
        self._workers[worker.worker_id] = worker
        self._number.setdefault(worker.worker_id, len(self._number))
        number = self._number_of_trait.setdefault(_trait(worker), len(self._kinds))
        if number == len(self._kinds):
            self._kinds.append(Kind(number, worker))
        self._kind_of[worker.worker_id] = kind = self._kinds[number]
        kind.count += 1
        self._num_fed.clear()

    def remove(self, worker_id: str) -> None:
        self._leave_group(worker_id)
        del self._workers[worker_id]
        self._kind_of[worker_id].count -= 1
        self._num_fed.clear()

    def kind(self, worker: Worker) -> Kind:
        return self._kind_of[worker.worker_id]

    def plan(self, left: Work, upstream_first: bool = False) -> None:
        """Rank every kind's stages by what they earn with this much work left: the prices of the fluid optimum.

        A card that can only decode gets the decodes that larger cards would do as well, because these earn more by
        denoising. Between stages that earn the same, the one furthest downstream is first, or furthest upstream; but
        one that a host stage follows is not put off even then, so that the host has its work meanwhile.
        """
        kinds = [kind for kind in self._kinds if kind.count]
        counts: Counter[Rates] = Counter()
        for kind in kinds:
            kind.rates = rates(kind.worker, self._stages, self._costs)
            kind.speed = sum(kind.rates)
            counts[kind.rates] += kind.count
        prices = fluid(left, counts).prices
        self.capacity = [
            sum(rate[position] * count for rate, count in counts.items()) for position in range(len(self._stages))
        ]
        for kind in kinds:
            earned = [price * rate for price, rate in zip(prices, kind.rates, strict=True)]
            enough = TIE * max(earned)
            for stage in kind.worker.stages:
                position = self._position[stage]
                is_early = upstream_first and stage not in self._before_host
                kind.rank[stage] = earned[position] < enough, position if is_early else -position
                kind.faster[stage] = _faster(kinds, position, kind)

    def set_idle(self, worker_id: str, loaded: frozenset[str], free_slots: int) -> None:
        """Record that the worker waits for work; if it did already, its group may have changed."""
        worker = self._workers[worker_id]
        group = Group(self._kind_of[worker_id].number, loaded if worker.residency != "resident" else None, free_slots)
        if self._group_of.get(worker_id) != group:
            self._leave_group(worker_id)
            self._group_of[worker_id] = group
            self._num_idle[group] += 1
            heapq.heappush(self._idle.setdefault(group, []), (self._number[worker_id], worker_id))

    def hosts(self, stage: str) -> frozenset[str]:
        """The workers that host a stage. Looks at each worker, so call it rarely."""
        return frozenset(name for name, worker in self._workers.items() if stage in worker.stages)

    def idle_workers(self) -> list[Worker]:
        """All waiting workers. Call it as rarely as `hosts`."""
        return [self._workers[name] for name in self._workers if name in self._group_of]

    def idle_groups(self) -> list[Group]:
        """Every group in which a worker may wait; the fastest kinds come first, so that they choose first."""
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
        """Record that the worker has work, predicted to end at that time."""
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

    def num_hosts(self, stage: str) -> int:
        return sum(kind.count for kind in self._kinds if stage in kind.worker.stages)

    def num_idle(self, stage: str) -> int:
        """Waiting workers that host a stage."""
        return sum(n for group, n in self._num_idle.items() if stage in self._kinds[group.kind].worker.stages)

    def num_fed(self, stage: str, following: str) -> int:
        """Workers that run the stage that follows and depend on others for what this one makes."""
        known = self._num_fed.get((stage, following))
        if known is None:
            feeding = [k.count for k in self._kinds if following in k.worker.stages and stage not in k.worker.stages]
            known = self._num_fed[stage, following] = sum(feeding)
        return known

    def rate(self, worker: Worker, stage: str) -> float:
        """Work per second, as planned with."""
        return self._kind_of[worker.worker_id].rates[self._position[stage]]

    def total_rate(self, stage: str) -> float:
        """The rate of all workers of the stage together."""
        return self.capacity[self._position[stage]]

    def faster(self, worker: Worker, stage: str) -> Sequence[tuple[Kind, float]]:
        """Kinds that run the stage in less time than this worker, with their rates, as of the last `plan`."""
        return self._kind_of[worker.worker_id].faster[stage]


def _faster(kinds: Iterable[Kind], position: int, kind: Kind) -> list[tuple[Kind, float]]:
    return [(other, other.rates[position]) for other in kinds if other.rates[position] > kind.rates[position]]


def _trait(worker: Worker) -> Trait:
    return Trait(
        worker.stages, worker.device_name, worker.threads, worker.residency, worker.host_slots, worker.batch_size
    )
