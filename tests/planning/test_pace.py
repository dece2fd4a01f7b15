"""The time that a batch will still take, estimated from its plan and the clips that have ended."""

from __future__ import annotations

import pytest
from builders import D, V

from ltx_dist.pipeline.work import Assignment, Completion, StageReport
from ltx_dist.planning.pace import Pace, planned_ends


def test_nothing_is_said_before_a_clip_ended() -> None:
    assert Pace(4).eta(0, 0.0, 5.0) is None


def test_it_counts_down_between_clips_and_stops_at_zero() -> None:
    pace = Pace(10)
    assert pace.eta(1, 6.0, 6.0) == pytest.approx(54)
    assert pace.eta(1, 6.0, 10.0) == pytest.approx(50)
    assert pace.eta(1, 6.0, 1000.0) == 0


def test_four_workers_that_end_together_are_not_taken_for_one() -> None:
    """Eight clips on four workers, 20 s each. By count alone, 140 s more would be promised when the first one ends."""
    planned = [20.0, 20.0, 20.0, 20.0, 40.0, 40.0, 40.0, 40.0]
    assert Pace(8, planned).eta(1, 20.0, 20.0) == pytest.approx(20)


def test_what_was_measured_stretches_the_plan() -> None:
    assert Pace(2, [1.0, 2.0]).eta(1, 30.0, 30.0) == pytest.approx(30)
    assert Pace(2, [1.0, 4.0]).eta(1, 30.0, 30.0) == pytest.approx(90), "the second clip is three times as long"


@pytest.mark.parametrize("planned", [[], [3.0, 5.0, 9.0]])
def test_nothing_is_left_after_the_last(planned: list[float]) -> None:
    assert Pace(3, planned).eta(3, 12.0, 12.0) == 0


def test_some_clips_of_the_plan_stand_for_all() -> None:
    """Eight clips, four of them in the plan: six of eight clips count like three of its four."""
    pace = Pace(8, [10.0, 20.0, 30.0, 60.0])
    assert pace.planned_seconds == 60.0
    assert pace.eta(6, 30.0, 30.0) == pytest.approx(30)
    assert pace.eta(1, 5.0, 5.0) == pytest.approx(55)


def test_the_ends_of_a_plan_count_from_its_first_work() -> None:
    def completion(name: str, stage: str, started: float, finished: float) -> Completion:
        return Completion(Assignment((name,), stage, "gpu-0"), started, finished, StageReport(finished - started))

    plan = [
        completion("b", D, 3.0, 5.0),
        completion("b", V, 6.0, 7.0),
        completion("a", V, 5.0, 6.0),
    ]
    assert planned_ends(plan) == [3.0, 4.0]
    assert planned_ends(plan, 2.0) == [6.0, 8.0]
