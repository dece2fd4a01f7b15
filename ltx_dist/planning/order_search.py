"""Searches for a better order of waiting requests, in small pieces while the devices work.

The rules of `ordering.py` are right about most of a batch and a percent or two off at its end, where workers run out of
work one after the other. So, from the best of them, two requests at a time exchange their places, and what is predicted
to end sooner stays: a local search. Where few requests wait, each rule is also tried with first stages before later
ones: two workers with three clips then share the last clip's passes. The search is repeated when costs have drifted,
workers have come or gone, or half of the work is done, because the less is left, the better its cost is known.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Container, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ltx_dist.estimates.costs import Costs, Work, pass_seconds
from ltx_dist.pipeline.recipe import Recipe
from ltx_dist.pipeline.timeline import makespan
from ltx_dist.pipeline.work import Assignment, Completion
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.planning.losses import measured_bound
from ltx_dist.planning.ordering import AS_GIVEN, SHORT_PER_WORKER, WORTH_IT, rules, sampled
from ltx_dist.planning.simulator import Todo, predict
from ltx_dist.scheduling.scheduler import Order, Scheduler

MAX_SEARCHED = 512
"""Maximum number of waiting requests. With more, the end of the batch is far and the rules suffice."""

MAX_TRIES, MAX_IN_VAIN = 40, 20
"""Maximum number of exchanges tried, and of those in a row without a gain: four times as many save 0.1 to 0.3 %."""

NEAR_ENOUGH = 1.002
"""Multiple of the lower bound at which an order is good enough."""

PIECE = 50
"""Simulated completions between two yields, at most: a few milliseconds."""

Pieces = Generator[None, None, float]


def better_orders(scheduler: Scheduler, workers: Iterable[Worker], costs: Costs) -> Iterator[Order | None]:
    """Yield orders of the waiting requests that end the batch sooner than the present one, each better than the last.

    Yields None after every piece of work that found none, so that the caller can do other things in between. Everything
    is predicted from the state and the costs at the first `next`: a later order still lists all that waited then, and
    only those that still wait are moved. workers: of the run; lost ones are left out.
    """
    rest = _rest(scheduler, workers, costs)
    if rest is None:
        return
    best, found = Order(rest.waiting, scheduler.upstream_first), AS_GIVEN
    shortest = yield from rest.seconds(best)
    worth = shortest * (1 - WORTH_IT)
    seen = [best]
    for name, order in rest.orders():
        if order in seen:
            continue
        seen.append(order)
        seconds = yield from rest.seconds(order)
        if seconds < shortest:
            best, found, shortest = order, name, seconds
    if shortest < worth:
        yield best if rest.is_all else _of_all(scheduler, rest.placement, costs, found)
    rng, tried, in_vain = random.Random(0), 0, 0
    while rest.is_worth_searching(shortest) and tried < MAX_TRIES and in_vain < MAX_IN_VAIN:
        order = rest.exchanged(best, scheduler.waiting(), rng)
        if order is None:
            return
        seconds = yield from rest.seconds(order)
        tried, in_vain = tried + 1, in_vain + 1
        if seconds < shortest:
            best, shortest, in_vain = order, seconds, 0
            if shortest < worth:
                yield best


def _rest(scheduler: Scheduler, workers: Iterable[Worker], costs: Costs) -> _Rest | None:
    """The state to predict from; None if there is nothing to order, or nothing to simulate until a worker is back."""
    there = {worker.worker_id: worker for worker in workers if scheduler.has_worker(worker.worker_id)}
    waiting, running = scheduler.waiting(), scheduler.running()
    begun = {name: scheduler.left(name) for assignment in running for name in assignment.request_ids}
    hosted = {stage for worker in there.values() for stage in worker.stages}
    recipe = scheduler.recipe
    needed = {stage for todo in (*begun.values(), *waiting.values()) for stage in todo if stage in recipe.on_device}
    if len(there) < 2 or not waiting or not hosted.issuperset(needed):
        return None
    # In a long batch, the same sample represents all requests in every order, or the orders would not be comparable.
    some = sampled(list(waiting), len(there))
    kinds = {name: _whole_work(recipe, costs, name) for name in some}
    is_short = len(waiting) <= SHORT_PER_WORKER * len(there)
    if len(set(kinds.values())) == 1 and not is_short:
        return None
    todo = begun | {name: waiting[name] for name in some}
    # A pass on a worker that joined or was lost since `workers` was made is left out, and so are its requests.
    known = {assignment: since for assignment, since in running.items() if assignment.worker_id in there}
    seconds_left = {a: max(0.0, pass_seconds(costs, a, there[a.worker_id]) - since) for a, since in known.items()}
    placement = Placement(recipe, "what is left", tuple(there.values()), scheduler.max_queued)
    frozen = _FrozenCosts(costs, placement, todo)
    return _Rest(placement, list(some), seconds_left, todo, frozen, kinds, len(some) == len(waiting), is_short)


def _of_all(scheduler: Scheduler, placement: Placement, costs: Costs, rule: str) -> Order:
    """The best rule for a sample of requests, applied to all that wait."""
    waiting = scheduler.waiting()
    return Order(rules(placement, waiting, costs)[rule](list(waiting)))


def _whole_work(recipe: Recipe, costs: Costs, name: str) -> Work:
    """The work of all stages, done or not: requests that are equal in it have no reason to exchange places."""
    return tuple(costs.work(name, stage) for stage in recipe.on_device)


class _FrozenCosts:
    """A snapshot of the costs, because they keep learning."""

    def __init__(self, costs: Costs, placement: Placement, todo: Todo) -> None:
        on_device = frozenset(placement.recipe.on_device)
        self._works = {
            (name, stage): costs.work(name, stage)
            for name, left in todo.items()
            for stage in left
            if stage in on_device
        }
        self._rates = {(w.worker_id, stage): costs.rate(w, stage) for w in placement.workers for stage in w.stages}
        self.swap_seconds = costs.swap_seconds

    def work(self, request_id: str, stage: str) -> float:
        return self._works[request_id, stage]

    def rate(self, worker: Worker, stage: str) -> float:
        return self._rates[worker.worker_id, stage]

    def observe(self, completion: Completion, worker: Worker) -> bool:
        return False


@dataclass
class _Rest:
    """The state from which everything is predicted. waiting: the waiting requests, or a sample of them.

    running: the assignments on the devices, and their seconds left. todo: the stages left of each request, running ones
    first. kinds: the whole work of each waiting request. is_all: `waiting` is no sample. is_short: few wait for each
    worker.
    """

    placement: Placement
    waiting: list[str]
    running: Mapping[Assignment, float]
    todo: Todo
    costs: _FrozenCosts
    kinds: Mapping[str, Work]
    is_all: bool
    is_short: bool
    _bound: float = field(default=0.0, init=False)

    def orders(self) -> Iterator[tuple[str, Order]]:
        """Yield the orders to try, with the names of their rules."""
        by_name = rules(self.placement, self.todo, self.costs)
        for upstream_first in (False, True) if self.is_short else (False,):
            for name, rule in by_name.items():
                yield name, Order(rule(self.waiting), upstream_first)

    def seconds(self, order: Order) -> Pieces:
        """The predicted makespan of the rest in this order."""
        completions: list[Completion] = []
        begun = [name for assignment in self.running for name in assignment.request_ids]
        todo = {name: self.todo[name] for name in (*begun, *order.request_ids)}
        predicted = predict(self.placement, todo, self.costs, running=self.running, upstream_first=order.upstream_first)
        for completion in predicted:
            completions.append(completion)
            if len(completions) % PIECE == 0:
                yield
        yield
        if not self._bound:
            self._bound = measured_bound(completions, self.placement.workers, self.placement.recipe, self.costs).seconds
        return makespan(completions)

    def is_worth_searching(self, seconds: float) -> bool:
        return self.is_all and len(self.waiting) <= MAX_SEARCHED and seconds > NEAR_ENOUGH * self._bound

    def exchanged(self, order: Order, still: Container[str], rng: random.Random) -> Order | None:
        """The order with two unlike requests in each other's places; None if no two are left that differ.

        Requests that are alike keep their order. still: those that wait now; moving one that was given out since would
        only seem to gain.
        """
        changed = list(order.request_ids)
        places = [place for place, name in enumerate(changed) if name in still]
        kinds = [self.kinds[changed[place]] for place in places]
        if len(set(kinds)) < 2:
            return None
        one, other = 0, 0
        while kinds[one] == kinds[other]:
            one, other = rng.randrange(len(kinds)), rng.randrange(len(kinds))
        kinds[one], kinds[other] = kinds[other], kinds[one]
        alike: defaultdict[Work, list[str]] = defaultdict(list)
        for name in reversed(self.waiting):
            if name in still:
                alike[self.kinds[name]].append(name)
        for place, kind in zip(places, kinds, strict=True):
            changed[place] = alike[kind].pop()
        return Order(changed, order.upstream_first)
