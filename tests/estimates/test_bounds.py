"""The lower bound: each of its three parts where it binds, and never above what some schedule reaches."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltx_dist.estimates.bounds import fluid, lower_bound
from ltx_dist.pipeline.stages import STAGES, Stage
from ltx_dist.pipeline.timeline import makespan
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.planning.simulator import predict

E, D, V = STAGES


class Known:
    """Costs by hand: works by request, a rate a device."""

    def __init__(self, works, speed):
        self.works, self.speed = works, speed

    def work(self, request_id, stage):
        return self.works[request_id][STAGES.index(stage)]

    def rate(self, worker, stage):
        return self.speed[worker.device_name]

    def swap_seconds(self, worker, stage):
        return 0.0

    def observe(self, completion, worker):
        return False


def workers(*hosted: tuple[Stage, ...], device: str = "a") -> tuple[Worker, ...]:
    return tuple(Worker(f"w{i}", stages, "cuda", i, device_name=device) for i, stages in enumerate(hosted))


ONE = Known({}, {"a": 1.0})


def test_each_bound_where_it_binds():
    clips = [(1.0, 4.0, 1.0)] * 4
    assert lower_bound(clips[:1], workers(*[STAGES] * 4), ONE).by == "the longest clip"
    assert lower_bound(clips, workers((E,), (D,), (V,)), ONE).seconds == 1 + 4 * 4 + 1
    assert lower_bound(clips, workers((E,), (D,), (D,), (V,)), ONE).seconds == (16 + 2 + 2) / 2
    all_work = lower_bound(clips * 2, workers(*[STAGES] * 3), ONE)
    assert (all_work.seconds, all_work.by) == (pytest.approx(8 * 6 / 3), "all work")
    assert lower_bound([], workers(STAGES), ONE).seconds == 0
    assert lower_bound(clips, workers((E,), (D,)), ONE).seconds == float("inf")


def test_unrelated_machines_are_bound_by_the_linear_program():
    """By hand: the card of rate 4 and that of rate 1 do 10 together; a decode-only card of 5 takes all decodes."""
    assert fluid((0.0, 10.0, 0.0), {(0.0, 4.0, 0.0): 1, (0.0, 1.0, 0.0): 1}).seconds == 2.0
    helped = fluid((0.0, 10.0, 10.0), {(0.0, 1.0, 1.0): 1, (0.0, 0.0, 5.0): 1})
    assert helped.seconds == 10.0 and helped.prices[2] == 0, "decoding has time to spare"
    shared = fluid((0.0, 4.0, 16.0), {(0.0, 1.0, 1.0): 1, (0.0, 0.0, 1.0): 1})
    assert shared.seconds == 10.0 and shared.prices[1] == shared.prices[2] > 0


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
    took = makespan(list(predict(Placement("x", made, {D: 4, V: 4}), works, costs)))
    bound = lower_bound(list(works.values()), made, costs).seconds
    assert bound <= took * (1 + 1e-9)
