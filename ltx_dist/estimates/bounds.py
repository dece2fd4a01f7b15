"""What no order of a batch's work can beat on given workers, and which stages are worth a worker's time.

Of three lower bounds of the makespan the largest counts:
  the longest clip alone, each stage on the fastest worker that hosts it;
  by stage, for m workers of one speed: (its work + the m smallest heads + the m smallest tails) / m, where a clip's
  head and tail are its stages before and after (the bound of hybrid flow shops: Santos, Hunsucker and Deal 1995);
  all work divided among all workers as if it were a fluid, each stage at each worker's own rate: the linear program
  of unrelated machines. For workers of one kind it is the largest of (stage / its hosts) and (all work / all workers).
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ltx_dist.estimates.costs import Costs, Work
from ltx_dist.pipeline.stages import STAGES
from ltx_dist.pipeline.worker import Worker

Rates = tuple[float, float, float]
"""Work a second of each stage, in the order of STAGES; 0 for one that is not hosted."""

LONGEST_CLIP, ALL_WORK = "the longest clip", "all work"


@dataclass(frozen=True, slots=True)
class Bound:
    """seconds: of the makespan at least. by: which of the bounds it is, or the stage that holds the batch up."""

    seconds: float
    by: str


@dataclass(frozen=True, slots=True)
class Fluid:
    """The linear program's optimum. prices: what a unit of each stage's work is worth in it, 0 where there is time to
    spare. A worker gains most by the stage whose price times its rate is largest."""

    seconds: float
    prices: Rates


def rates(worker: Worker, costs: Costs) -> Rates:
    """Of one worker."""
    encode, denoise, decode = (costs.rate(worker, stage) if stage in worker.stages else 0.0 for stage in STAGES)
    return encode, denoise, decode


def lower_bound(works: Sequence[Work], workers: Iterable[Worker], costs: Costs) -> Bound:
    """Of a batch with these works on these workers. 0 of nothing; infinite where a stage with work has no worker."""
    kinds = Counter(rates(worker, costs) for worker in workers)
    if not works:
        return Bound(0.0, ALL_WORK)
    fastest = [max((kind[stage] for kind in kinds), default=0.0) for stage in range(3)]
    for stage in range(3):
        if not fastest[stage] and any(work[stage] for work in works):
            return Bound(float("inf"), str(STAGES[stage]))
        fastest[stage] = fastest[stage] or 1.0
    shortest = [(w[0] / fastest[0], w[1] / fastest[1], w[2] / fastest[2]) for w in works]
    bounds = [Bound(max(map(sum, shortest)), LONGEST_CLIP)]
    bounds += [Bound(_stage_bound(stage, shortest, kinds), str(STAGES[stage])) for stage in range(3)]
    flow = fluid((sum(w[0] for w in works), sum(w[1] for w in works), sum(w[2] for w in works)), kinds)
    paid = [STAGES[stage] for stage in range(3) if flow.prices[stage] > 0]
    bounds.append(Bound(flow.seconds, str(paid[0]) if len(paid) == 1 else ALL_WORK))
    return max(bounds, key=lambda bound: bound.seconds)


def _stage_bound(stage: int, shortest: Sequence[Work], kinds: Counter[Rates]) -> float:
    """0 where the stage's workers differ: the smallest heads then say little, and the fluid counts their rates."""
    speeds = {kind[stage] for kind in kinds if kind[stage]}
    if len(speeds) != 1:
        return 0.0
    count = sum(number for kind, number in kinds.items() if kind[stage])
    # A worker that never runs the stage is idle in it for longer than any clip's head and tail.
    heads = heapq.nsmallest(count, (sum(clip[:stage]) for clip in shortest))
    tails = heapq.nsmallest(count, (sum(clip[stage + 1 :]) for clip in shortest))
    return (sum(clip[stage] for clip in shortest) + sum(heads) + sum(tails)) / count


def fluid(work: Work, kinds: Mapping[Rates, int]) -> Fluid:
    """The shortest time in which workers of these kinds do this work, divided at will: the dual program, exactly.

    With prices p the workers together earn at most sum over kinds of (number x max over stages of p x rate) a second,
    and all work is worth sum of (p x work): the quotient is a lower bound for every p, and the best p is the optimum.
    It is found at a corner, where enough kinds are indifferent between two stages to fix every price: three stages have
    few corners, so all are tried.
    """
    best = Fluid(0.0, (0.0, 0.0, 0.0))
    for prices in set(_corners(list(kinds))):
        earned = sum(n * max(p * rate for p, rate in zip(prices, kind, strict=True)) for kind, n in kinds.items())
        worth = sum(p * w for p, w in zip(prices, work, strict=True))
        if earned > 0 and worth / earned > best.seconds:
            best = Fluid(worth / earned, prices)
    return best


def _corners(kinds: Sequence[Rates]) -> Iterator[Rates]:
    """Prices with one, two or all three stages above 0, each further one fixed by a kind that hosts two of them."""
    for first in range(3):
        yield _prices({first: 1.0})
        for second in range(3):
            if second == first:
                continue
            for ratio in _ratios(kinds, first, second):
                yield _prices({first: 1.0, second: ratio})
                third = 3 - first - second
                for base in (first, second):
                    for further in _ratios(kinds, base, third):
                        yield _prices({first: 1.0, second: ratio, third: further * (1.0 if base == first else ratio)})


def _ratios(kinds: Sequence[Rates], one: int, other: int) -> set[float]:
    """Prices of `other` in those of `one` at which some kind earns the same with both."""
    return {kind[one] / kind[other] for kind in kinds if kind[one] and kind[other]}


def _prices(known: dict[int, float]) -> Rates:
    return known.get(0, 0.0), known.get(1, 0.0), known.get(2, 0.0)
