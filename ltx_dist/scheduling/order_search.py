"""A better order for what waits, looked for in small pieces while the devices work.

The rules of `ordering.py` are right about most of a batch and a percent or two off at its end, where workers run out of
work one after the other. So, from the best of them, two requests at a time exchange their places, and what is predicted
to end sooner stays: a local search. It is worth its time again when costs have drifted, workers have come or gone, or
half of the work is done: the less is left, the better is known what it takes.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ltx_dist.scheduling.costs import Costs, Work, pass_seconds
from ltx_dist.scheduling.losses import measured_bound
from ltx_dist.scheduling.ordering import CLIPS_A_WORKER, MAX_SIMULATED, WORTH_IT, rules
from ltx_dist.scheduling.placement import Placement, Worker
from ltx_dist.scheduling.scheduler import Scheduler
from ltx_dist.scheduling.simulator import predict
from ltx_dist.scheduling.timeline import makespan
from ltx_dist.types import STAGES, Completion, Stage

MAX_SEARCHED = 512
"""Requests that wait. With more, the end of the batch is far and the rules will do."""

MAX_TRIES, MAX_IN_VAIN = 40, 20
"""Exchanges tried, and such in a row that bring nothing: four times as many gain 0.1 to 0.3 % more."""

NEAR_ENOUGH = 1.002
"""Times the lower bound: an order as good as that is not looked at any further."""

PIECE = 50
"""Simulated completions between two yields: some 2 ms."""

Pieces = Generator[None, None, float]


def better_orders(scheduler: Scheduler, workers: Iterable[Worker], costs: Costs) -> Iterator[list[str] | None]:
    """For what waits, orders that end the batch sooner than that of now, each better than the one before.

    None after every piece of work without one, so that the caller can look after other things and come back. All is
    predicted from the state at the first call, in which what is on the devices counts by what is left of it; requests
    that have been given out meanwhile are still in the orders. workers: of the run; those that are gone are left out.
    """
    rest = _rest(scheduler, workers, costs)
    if rest is None:
        return
    now = best = rest.waiting
    worth = shortest = yield from rest.seconds(now)
    worth *= 1 - WORTH_IT
    for rule in rules(rest.placement, rest.costs).values():
        order = rule(now)
        seconds = yield from rest.seconds(order)
        if seconds < shortest:
            best, shortest = order, seconds
    if shortest < worth:
        yield best
    rng, tried, in_vain = random.Random(0), 0, 0
    while rest.is_worth_searching(shortest) and tried < MAX_TRIES and in_vain < MAX_IN_VAIN:
        order = rest.exchanged(best, rng)
        seconds = yield from rest.seconds(order)
        tried, in_vain = tried + 1, in_vain + 1
        if seconds < shortest:
            best, shortest, in_vain = order, seconds, 0
            if shortest < worth:
                yield best


def _rest(scheduler: Scheduler, workers: Iterable[Worker], costs: Costs) -> _Rest | None:
    """None where there is nothing to put in order, or nothing to simulate until a worker is back."""
    there = {worker.worker_id: worker for worker in workers if scheduler.has_worker(worker.worker_id)}
    waiting, running = scheduler.waiting(), scheduler.running()
    begun = [request_id for assignment in running for request_id in assignment.request_ids]
    at = {**{name: assignment.stage for assignment in running for name in assignment.request_ids}, **waiting}
    hosted = {stage for worker in there.values() for stage in worker.stages}
    if not waiting or not hosted.issuperset(STAGES[min(map(STAGES.index, at.values())) :]):
        return None
    left: dict[tuple[str, Stage], float] = {}
    for assignment, since in running.items():
        whole = pass_seconds(costs, assignment, there[assignment.worker_id])
        share = max(0.0, 1 - since / whole) if whole else 0.0
        left |= {(request_id, assignment.stage): share for request_id in assignment.request_ids}
    placement = Placement("what is left", tuple(there.values()), scheduler.max_queued)
    rest = _Rest(placement, list(waiting), begun, at, _Partly(costs, left))
    return rest if len(rest.kinds) > 1 else None


class _Partly:
    """Costs of requests that have a share of a stage behind them: `left` is what is not."""

    def __init__(self, costs: Costs, left: Mapping[tuple[str, Stage], float]) -> None:
        self._costs, self._left = costs, left
        self.rate, self.swap_seconds, self.observe = costs.rate, costs.swap_seconds, costs.observe

    def work(self, request_id: str, stage: Stage) -> float:
        return self._costs.work(request_id, stage) * self._left.get((request_id, stage), 1.0)


@dataclass
class _Rest:
    """The state from which all is predicted. begun: on the devices, before all that wait."""

    placement: Placement
    waiting: list[str]
    begun: list[str]
    at: Mapping[str, Stage]
    costs: _Partly
    bound: float = 0.0

    def __post_init__(self) -> None:
        self._kind_of = {name: self._kind(name) for name in self.waiting}
        self.kinds = set(self._kind_of.values())
        size = max(MAX_SIMULATED, CLIPS_A_WORKER * len(self.placement.workers))
        self._step = -(-len(self.waiting) // size) or 1

    def seconds(self, order: Sequence[str]) -> Pieces:
        """Predicted of the batch in this order; of a long one, some that stand for all."""
        completions: list[Completion] = []
        for completion in predict(self.placement, [*self.begun, *order[:: self._step]], self.costs, self.at):
            completions.append(completion)
            if len(completions) % PIECE == 0:
                yield
        if not self.bound:
            self.bound = measured_bound(completions, self.placement.workers, self.costs).seconds
        return makespan(completions)

    def is_worth_searching(self, seconds: float) -> bool:
        return len(self.waiting) <= MAX_SEARCHED and seconds > NEAR_ENOUGH * self.bound

    def exchanged(self, order: Sequence[str], rng: random.Random) -> list[str]:
        """Two that differ in each other's places; those that are alike stay in the order in which they were."""
        new = list(order)
        one, other = rng.randrange(len(new)), rng.randrange(len(new))
        while self._kind_of[new[one]] == self._kind_of[new[other]]:
            one, other = rng.randrange(len(new)), rng.randrange(len(new))
        new[one], new[other] = new[other], new[one]
        alike: defaultdict[Work, list[str]] = defaultdict(list)
        for name in reversed(self.waiting):
            alike[self._kind_of[name]].append(name)
        return [alike[self._kind_of[name]].pop() for name in new]

    def _kind(self, name: str) -> Work:
        """Requests of one kind take the same from here on."""
        left = STAGES[STAGES.index(self.at[name]) :]
        encode, denoise, decode = (self.costs.work(name, stage) if stage in left else 0.0 for stage in STAGES)
        return encode, denoise, decode
