"""The lower bound: each of its three parts where it is the largest, and never above what a schedule reaches."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations

import pytest
from builders import RECIPE, STAGES, D, E, V, todo
from hypothesis import given, settings
from hypothesis import strategies as st

from ltx_dist.estimates.bounds import Rates, fluid, lower_bound
from ltx_dist.pipeline.timeline import makespan
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.planning.simulator import predict


class Known:
    """Costs set by hand: works by request, and one rate per device."""

    def __init__(self, works, speed):
        self.works, self.speed = works, speed

    def work(self, request_id, stage):
        return self.works[request_id][STAGES.index(stage)]

    def rate(self, worker, stage):
        return self.speed[worker.device_name]

    def swap_seconds(self, worker, components):
        return 0.0

    def observe(self, completion, worker):
        return False


def workers(*hosted: tuple[str, ...], device: str = "a") -> tuple[Worker, ...]:
    return tuple(Worker(f"w{i}", stages, "cuda", i, device_name=device) for i, stages in enumerate(hosted))


ONE = Known({}, {"a": 1.0})


def test_each_bound_where_it_binds():
    clips = [(1.0, 4.0, 1.0)] * 4
    assert lower_bound(clips[:1], workers(*[STAGES] * 4), STAGES, ONE).by == "the longest clip"
    assert lower_bound(clips, workers((E,), (D,), (V,)), STAGES, ONE).seconds == 1 + 4 * 4 + 1
    assert lower_bound(clips, workers((E,), (D,), (D,), (V,)), STAGES, ONE).seconds == (16 + 2 + 2) / 2
    all_work = lower_bound(clips * 2, workers(*[STAGES] * 3), STAGES, ONE)
    assert (all_work.seconds, all_work.by) == (pytest.approx(8 * 6 / 3), "all work")
    assert lower_bound([], workers(STAGES), STAGES, ONE).seconds == 0
    assert lower_bound(clips, workers((E,), (D,)), STAGES, ONE).seconds == float("inf")


def test_unrelated_machines_are_bound_by_the_linear_program():
    """By hand: the cards with rates 4 and 1 do 10 together; a card with rate 5 that only decodes takes all decodes."""
    assert fluid((0.0, 10.0, 0.0), {(0.0, 4.0, 0.0): 1, (0.0, 1.0, 0.0): 1}).seconds == 2.0
    helped = fluid((0.0, 10.0, 10.0), {(0.0, 1.0, 1.0): 1, (0.0, 0.0, 5.0): 1})
    assert helped.seconds == 10.0 and helped.prices[2] == 0, "decoding has time to spare"
    shared = fluid((0.0, 4.0, 16.0), {(0.0, 1.0, 1.0): 1, (0.0, 0.0, 1.0): 1})
    assert shared.seconds == 10.0 and shared.prices[1] == shared.prices[2] > 0


def by_corners(work: Sequence[float], kinds: Mapping[Rates, int]) -> float:
    """The optimum of the dual program for three stages, by trying each of its corners: the oracle for `fluid`.

    At a corner, enough kinds are indifferent between two stages to fix every price.
    """
    best = 0.0
    for prices in set(_corners(list(kinds))):
        earned = sum(n * max(p * rate for p, rate in zip(prices, kind, strict=True)) for kind, n in kinds.items())
        worth = sum(p * w for p, w in zip(prices, work, strict=True))
        best = max(best, worth / earned if earned > 0 else 0.0)
    return best


def _corners(kinds: Sequence[Rates]) -> Iterator[tuple[float, float, float]]:
    """Prices with one, two or all three stages above 0, each further one fixed by a kind that hosts two of them."""
    for first, second in permutations(range(3), 2):
        yield _prices({first: 1.0})
        third = 3 - first - second
        for ratio in _ratios(kinds, first, second):
            yield _prices({first: 1.0, second: ratio})
            for base in (first, second):
                for further in _ratios(kinds, base, third):
                    yield _prices({first: 1.0, second: ratio, third: further * (1.0 if base == first else ratio)})


def _ratios(kinds: Sequence[Rates], one: int, other: int) -> set[float]:
    """Prices of `other` in those of `one` at which some kind earns the same with both."""
    return {kind[one] / kind[other] for kind in kinds if kind[one] and kind[other]}


def _prices(known: dict[int, float]) -> tuple[float, float, float]:
    return known.get(0, 0.0), known.get(1, 0.0), known.get(2, 0.0)


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32))
def test_the_linear_program_equals_the_search_of_its_corners(seed: int):
    rng = random.Random(seed)
    drawn = [
        tuple(rng.choice([0.0, 1.0]) * rng.uniform(1e11, 1e14) for _ in range(3)) for _ in range(rng.randint(1, 4))
    ]
    kinds = {kind: rng.randint(1, 5) for kind in drawn if any(kind)}
    hosted = [any(kind[stage] for kind in kinds) for stage in range(3)]
    work = tuple(rng.choice([0, 1]) * rng.uniform(1e12, 1e15) * here for here in hosted)
    if kinds:
        assert fluid(work, kinds).seconds == pytest.approx(by_corners(work, kinds), rel=1e-6)


def test_rates_that_are_proportional_but_for_their_last_bits():
    """As learned in a batch of distilled clips on an H100, two RTX 4090s and an RTX 3060: it took 61.4 s, and the bound
    was 75.8 s, above what had been reached."""
    kinds = {
        (237000000000071.53, 332928571428571.5, 394999999999994.9): 1,
        (49499999999999.01, 69535714285714.29, 82499999999999.94): 2,
        (0.0, 10535714285714.287, 12500000000000.0): 1,
    }
    work = (156981839118803.88, 2.4759957590043924e16, 5317910973523664.0)
    found = fluid(work, kinds)
    assert found.seconds == pytest.approx(61.058, abs=1e-3)
    assert found.seconds == pytest.approx(by_corners(work, kinds), rel=1e-6)
    assert sum(p * w for p, w in zip(found.prices, work, strict=True)) == pytest.approx(found.seconds)


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32))
def test_noise_in_the_last_bits_changes_nothing(seed: int):
    rng = random.Random(seed)
    speeds = [rng.uniform(1e13, 4e14) for _ in range(3)]
    exact: dict[Rates, int] = {}
    noisy: dict[Rates, int] = {}
    for _ in range(rng.randint(2, 5)):
        factor, number = rng.uniform(0.02, 1.0), rng.randint(1, 5)
        kind = tuple(factor * speed * (rng.random() < 0.8) for speed in speeds)
        if any(kind):
            exact[kind] = number
            noisy[tuple(rate * (1 + rng.uniform(-1, 1) * 10 ** rng.uniform(-16, -11)) for rate in kind)] = number
    work = tuple(rng.uniform(1e14, 1e17) * any(kind[stage] for kind in exact) for stage in range(3))
    if exact:
        assert fluid(work, noisy).seconds == pytest.approx(by_corners(work, exact), rel=1e-6)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_no_schedule_beats_the_bound(seed: int):
    rng = random.Random(seed)
    speed = {"a": 1.0, "b": rng.uniform(0.2, 5)}
    hosted = [
        STAGES,
        *(tuple(sorted(rng.sample(STAGES, rng.randint(1, 3)), key=STAGES.index)) for _ in range(rng.randint(0, 4))),
    ]
    made = tuple(Worker(f"w{i}", stages, "cuda", i, device_name=rng.choice("ab")) for i, stages in enumerate(hosted))
    works = {f"r{i}": (rng.uniform(0, 1), rng.uniform(0, 5), rng.uniform(0, 2)) for i in range(rng.randint(1, 12))}
    costs = Known(works, speed)
    took = makespan(list(predict(Placement(RECIPE, "x", made, {D: 4, V: 4}), todo(works), costs)))
    bound = lower_bound(list(works.values()), made, STAGES, costs).seconds
    assert bound <= took * (1 + 1e-9)
