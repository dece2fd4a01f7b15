"""Where the makespan went: the parts add up to it, and each second is counted under the right name."""

from __future__ import annotations

from dataclasses import astuple

import pytest
from builders import RECIPE, D, E, V

from ltx_dist.estimates.costs import UniformCosts
from ltx_dist.pipeline.work import Assignment, Completion, Failure, StageReport
from ltx_dist.pipeline.worker import Worker
from ltx_dist.planning.losses import losses, measured_bound

A, B = Worker("a", (E, V), "cuda"), Worker("b", (D,), "cuda")


def ran(request_id, stage, worker, submitted, started, finished, load=0.0, failure=None) -> Completion:
    report = StageReport(finished - started, load, None if failure is None else "x")
    return Completion(
        Assignment((request_id,), stage, worker.worker_id), started, finished, report, failure, submitted=submitted
    )


RUN = [
    ran("1", E, A, 10.0, 10.0, 11.0),
    ran("1", D, B, 11.0, 11.5, 15.5),  # half a second to hand over
    ran("2", D, B, 15.5, 16.0, 18.0, failure=Failure.ERROR),
    ran("1", V, A, 15.5, 17.0, 19.0, load=1.0),  # half a second to hand over, and one to load
]


def test_the_parts_add_up_to_the_makespan():
    found = losses(RUN, [A, B], RECIPE)
    assert sum(astuple(found)) == pytest.approx(9.0)


def test_each_part_has_its_own_name():
    a, b = losses(RUN, [A], RECIPE), losses(RUN, [B], RECIPE)
    assert (a.work, a.swaps, a.handing_over, a.waiting, a.fill, a.drain) == pytest.approx((3.0, 1.0, 0.5, 4.5, 0, 0))
    assert (b.work, b.in_vain, b.fill, b.handing_over, b.drain) == pytest.approx((4.0, 2.0, 1.0, 1.0, 1.0))


def test_a_run_of_nothing_lost_nothing():
    assert astuple(losses([], [A, B], RECIPE)) == (0.0,) * 7


def test_only_work_that_ended_well_is_in_the_bound():
    assert measured_bound(RUN, [A, B], RECIPE, UniformCosts()).seconds == 1 + 4 + 2
    assert measured_bound([], [A, B], RECIPE, UniformCosts()).seconds == 0
