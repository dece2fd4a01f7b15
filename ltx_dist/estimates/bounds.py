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
from fractions import Fraction
from operator import mul

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
    hosts. Its optimum is the makespan. Prices are found for rounded work and rates; what they are worth is computed
    with the work and rates as given, which is a lower bound for any prices (weak duality).
    """
    num_stages = len(work)
    fastest = [max((kind[position] for kind in kinds), default=0.0) for position in range(num_stages)]
    alone = [part / by if by else 0.0 for part, by in zip(work, fastest, strict=True)]
    scale = [rate or 1.0 for rate in fastest]
    scaled = Counter[tuple[int, ...]]()
    for kind, number in kinds.items():
        scaled[_in_integers(kind, scale)] += number
    rows = [[0] * num_stages + list(scaled.values())]
    for column, kind in enumerate(scaled):
        for position in range(num_stages):
            if kind[position]:
                row = [0] * (num_stages + len(scaled))
                row[position], row[num_stages + column] = kind[position], -UNIT
                rows.append(row)
    objective = _in_integers(alone, [max(alone, default=0.0) or 1.0] * num_stages)
    found = maximize([*objective, *[0] * len(scaled)], rows, [1] + [0] * (len(rows) - 1))
    prices = [price / by for price, by in zip(found, scale, strict=False)]
    earned = sum(number * max(map(mul, prices, kind)) for kind, number in kinds.items())
    if not earned:
        return Fluid(0.0, (0.0,) * num_stages)
    return Fluid(sum(map(mul, prices, work)) / earned, tuple(price / earned for price in prices))


UNIT = 10**7
"""The integer that stands for 1 in the program."""


def _in_integers(values: Sequence[float], scale: Sequence[float]) -> tuple[int, ...]:
    return tuple(round(UNIT * value / by) for value, by in zip(values, scale, strict=True))


def maximize(objective: Sequence[int], rows: Sequence[Sequence[int]], limits: Sequence[int]) -> list[float]:
    """The x >= 0 with the largest `objective · x` for which `rows · x <= limits`.

    A dense simplex, for some ten variables and some thirty rows. In floating point it would fail if the rates of two
    kinds are proportional but for their last bits, as learned rates often are: it would divide by the rounding error
    that is left after an elimination. So the table holds integers over a common divisor, the last pivot, and every
    division is exact (Bareiss 1968, Sylvester's identity and multistep integer-preserving Gaussian elimination). By
    Bland's rule the pivots never cycle (Bland 1977, New finite pivoting rules for the simplex method).

    limits: none below 0, so that x = 0 is where the search begins. The maximum must be finite.
    """
    num_rows, num_variables, divisor = len(rows), len(objective), 1
    assert all(limit >= 0 for limit in limits), limits
    table = [
        [*row, *(int(slack == number) for slack in range(num_rows)), limits[number]] for number, row in enumerate(rows)
    ]
    reduced = [*(-value for value in objective), *[0] * (num_rows + 1)]
    basis = [num_variables + number for number in range(num_rows)]
    while (entering := _first_negative(reduced)) is not None:
        ratios = [
            (Fraction(row[-1], row[entering]), basis[number], number)
            for number, row in enumerate(table)
            if row[entering] > 0
        ]
        assert ratios, "the program is unbounded"
        leaving = min(ratios)[2]
        basis[leaving], pivot = entering, table[leaving]
        table = [row if row is pivot else _eliminated(row, pivot, entering, divisor) for row in table]
        reduced = _eliminated(reduced, pivot, entering, divisor)
        divisor = pivot[entering]
    solution = [0.0] * (num_variables + num_rows)
    for number, variable in enumerate(basis):
        solution[variable] = table[number][-1] / divisor
    return solution[:num_variables]


def _first_negative(reduced: Sequence[int]) -> int | None:
    return next((column for column, value in enumerate(reduced[:-1]) if value < 0), None)


def _eliminated(row: Sequence[int], pivot: Sequence[int], column: int, divisor: int) -> list[int]:
    by, factor = pivot[column], row[column]
    return [(by * value - factor * other) // divisor for value, other in zip(row, pivot, strict=True)]
