"""Lower bounds on a batch's makespan on given workers, and the value of each stage's work.

The largest of three lower bounds of the makespan counts:
  the longest clip alone, each stage on the fastest worker that hosts it;
  per stage, for m workers of one speed: (its work + the m smallest heads + the m smallest tails) / m, where a clip's
  head and tail are its stages before and after (the bound of hybrid flow shops: Santos, Hunsucker and Deal 1995);
  all work divided among all workers as if it were a fluid, each stage at each worker's own rate: the linear program
  of unrelated machines. For workers of one kind it is the largest of (stage / its hosts) and (all work / all workers).
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ltx_dist.estimates.costs import Costs, Work
from ltx_dist.pipeline.worker import Worker

Rates = tuple[float, ...]
"""Work per second of each device stage, in the recipe's order; 0 for one that is not hosted."""

LONGEST_CLIP, ALL_WORK = "the longest clip", "all work"


@dataclass(frozen=True, slots=True)
class Bound:
    """seconds: the makespan is at least this. by: which of the bounds it is, or the stage that is the bottleneck."""

    seconds: float
    by: str


@dataclass(frozen=True, slots=True)
class Fluid:
    """The optimum of the linear program. prices: the shadow price of a unit of each stage's work, 0 where there is time
    to spare. A worker is most useful at the stage whose price times the worker's rate is largest."""

    seconds: float
    prices: tuple[float, ...]


def rates(worker: Worker, stages: Sequence[str], costs: Costs) -> Rates:
    """The worker's rates for these stages, in work per second; 0 for those that it does not host."""
    return tuple(costs.rate(worker, stage) if stage in worker.stages else 0.0 for stage in stages)


def lower_bound(works: Sequence[Work], workers: Iterable[Worker], stages: Sequence[str], costs: Costs) -> Bound:
    """Lower bound of the makespan: 0 s if there are no clips, infinite if a stage with work has no worker."""
    kinds = Counter(rates(worker, stages, costs) for worker in workers)
    if not works:
        return Bound(0.0, ALL_WORK)
    fastest = [max((kind[position] for kind in kinds), default=0.0) for position in range(len(stages))]
    for position, stage in enumerate(stages):
        if not fastest[position] and any(work[position] for work in works):
            return Bound(float("inf"), stage)
        fastest[position] = fastest[position] or 1.0
    shortest = [tuple(part / speed for part, speed in zip(work, fastest, strict=True)) for work in works]
    bounds = [Bound(max(map(sum, shortest)), LONGEST_CLIP)]
    bounds += [Bound(_stage_bound(position, shortest, kinds), stage) for position, stage in enumerate(stages)]
    flow = fluid([sum(parts) for parts in zip(*works, strict=True)], kinds)
    paid = [stage for stage, price in zip(stages, flow.prices, strict=True) if price > 0]
    bounds.append(Bound(flow.seconds, paid[0] if len(paid) == 1 else ALL_WORK))
    return max(bounds, key=lambda bound: bound.seconds)


def _stage_bound(position: int, shortest: Sequence[Work], kinds: Counter[Rates]) -> float:
    """The stage's bound in seconds; 0 if its workers differ: heads then say little, and the fluid counts their
    rates."""
    speeds = {kind[position] for kind in kinds if kind[position]}
    if len(speeds) != 1:
        return 0.0
    count = sum(number for kind, number in kinds.items() if kind[position])
    # A worker that never runs the stage is idle in it for longer than any clip's head and tail.
    heads = heapq.nsmallest(count, (sum(clip[:position]) for clip in shortest))
    tails = heapq.nsmallest(count, (sum(clip[position + 1 :]) for clip in shortest))
    return (sum(clip[position] for clip in shortest) + sum(heads) + sum(tails)) / count


def fluid(work: Sequence[float], kinds: Mapping[Rates, int]) -> Fluid:
    """The shortest time in which workers of these kinds do this work if it can be divided at will.

    The dual program: prices p >= 0 that make all work worth the most, sum of (p x work), while the workers together
    earn at most 1 per second, sum over kinds of (number x y), where a kind earns y >= p x rate with every stage it
    hosts. Its optimum is the makespan. Stages are scaled by their fastest rate, so that the numbers are of one size.
    """
    num_stages, items = len(work), list(kinds.items())
    scale = [max((kind[position] for kind in kinds), default=0.0) or 1.0 for position in range(num_stages)]
    rows = [[0.0] * num_stages + [float(number) for _, number in items]]
    for column, (kind, _) in enumerate(items):
        for position in range(num_stages):
            if kind[position]:
                row = [0.0] * (num_stages + len(items))
                row[position], row[num_stages + column] = kind[position] / scale[position], -1.0
                rows.append(row)
    hosted = [any(kind[position] for kind in kinds) for position in range(num_stages)]
    objective = [part / by if here else 0.0 for part, by, here in zip(work, scale, hosted, strict=True)]
    seconds, solution = maximize(objective + [0.0] * len(items), rows, [1.0] + [0.0] * (len(rows) - 1))
    return Fluid(seconds, tuple(price / by for price, by in zip(solution, scale, strict=False)))


NEAR_ZERO = 1e-12


def maximize(
    objective: Sequence[float], rows: Sequence[Sequence[float]], limits: Sequence[float]
) -> tuple[float, list[float]]:
    """The maximum of `objective · x` and an x that attains it, for x >= 0 and `rows · x <= limits`.

    A dense simplex, for some ten variables and some thirty rows.

    limits: none below 0, so that x = 0 is where the search begins. The maximum must be finite. By Bland's rule the
    pivots never cycle (Bland 1977, New finite pivoting rules for the simplex method).
    """
    num_rows, num_variables = len(rows), len(objective)
    assert all(limit >= 0 for limit in limits), limits
    table = [
        [*map(float, row), *(float(slack == number) for slack in range(num_rows)), float(limits[number])]
        for number, row in enumerate(rows)
    ]
    reduced = [*(-float(value) for value in objective), *[0.0] * (num_rows + 1)]
    basis = [num_variables + number for number in range(num_rows)]
    while (entering := _first_negative(reduced)) is not None:
        ratios = [
            (row[-1] / row[entering], basis[number], number)
            for number, row in enumerate(table)
            if row[entering] > NEAR_ZERO
        ]
        assert ratios, "the program is unbounded"
        leaving = min(ratios)[2]
        pivot = table[leaving] = [value / table[leaving][entering] for value in table[leaving]]
        basis[leaving] = entering
        for number, row in enumerate(table):
            if number != leaving and row[entering]:
                table[number] = _eliminated(row, pivot, entering)
        reduced = _eliminated(reduced, pivot, entering)
    solution = [0.0] * (num_variables + num_rows)
    for number, variable in enumerate(basis):
        solution[variable] = table[number][-1]
    return reduced[-1], solution[:num_variables]


def _first_negative(reduced: Sequence[float]) -> int | None:
    return next((column for column, value in enumerate(reduced[:-1]) if value < -NEAR_ZERO), None)


def _eliminated(row: Sequence[float], pivot: Sequence[float], column: int) -> list[float]:
    factor = row[column]
    return [value - factor * other for value, other in zip(row, pivot, strict=True)]
