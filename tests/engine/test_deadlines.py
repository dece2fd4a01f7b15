"""What counts as hung: a worker that is up makes no progress for longer than a multiple of the usual time."""

from __future__ import annotations

from dataclasses import replace

import pytest
from builders import RECIPE, D, E, M, V
from fakes import make_request

from ltx_dist.engine.deadlines import FIRST_SECONDS, LEAST_SECONDS, NEWS_SECONDS, Deadlines
from ltx_dist.pipeline.work import Assignment, Completion, StageReport, WorkerState

DENOISE = Assignment(("a",), D, "w0")


def step(number: int) -> WorkerState:
    return WorkerState("w0", D, ("a",), number, 8)


def test_a_worker_that_still_loads_is_not_hung():
    deadlines = Deadlines(RECIPE)
    deadlines.begin(DENOISE, [make_request("a")], 0.0)
    assert deadlines.overdue(1e9) == []
    deadlines.joined("w0", 1e9)
    assert deadlines.overdue(1e9 + FIRST_SECONDS) == [] and deadlines.overdue(1e9 + FIRST_SECONDS + 1)


def test_every_step_grants_its_own_time():
    deadlines = Deadlines(RECIPE)
    deadlines.joined("w0", 0.0)
    deadlines.begin(DENOISE, [make_request("a")], 0.0)
    for number in range(1, 5):
        deadlines.saw([step(number)], 20.0 * number)
    assert deadlines.overdue(80 + 5 * 20.0) == [], "five times the median step"
    ((assignment, line),) = deadlines.overdue(81 + 5 * 20.0)
    assert assignment == DENOISE and line == "hung in denoise of a, step 5 of 8: no progress for 101 s (limit 100 s)"


def test_a_larger_clip_than_those_seen_is_granted_more():
    deadlines = Deadlines(RECIPE)
    deadlines.joined("w0", 0.0)
    small, large = make_request("s"), replace(make_request("l"), width=128, height=128)
    decode = Assignment(("s",), V, "w0")
    deadlines.begin(decode, [small], 0.0)
    deadlines.end(Completion(decode, 0.0, 30.0, StageReport(30.0)))
    deadlines.begin(replace(decode, request_ids=("l",)), [large], 0.0)
    assert deadlines.overdue(5 * 30 * 16.0) == [] and deadlines.overdue(5 * 30 * 16.0 + 1)


def test_more_clips_in_a_pass_are_granted_more():
    deadlines = Deadlines(RECIPE)
    deadlines.joined("w0", 0.0)
    one, four = Assignment(("s",), E, "w0"), Assignment(("a", "b", "c", "d"), E, "w0")
    deadlines.begin(one, [make_request("s")], 0.0)
    deadlines.end(Completion(one, 0.0, 30.0, StageReport(30.0)))
    deadlines.begin(four, [make_request(name) for name in four.request_ids], 0.0)
    assert deadlines.overdue(5 * 30 * 4.0) == []
    ((_, line),) = deadlines.overdue(5 * 30 * 4.0 + 1)
    assert line.startswith("hung in encode_text of a and 3 more: no progress for 601 s")


def begun_again(assignment: Assignment, seconds: float) -> Deadlines:
    """Deadlines that saw the assignment end once after this long, and see it begin at 0 s."""
    deadlines = Deadlines(RECIPE)
    deadlines.joined("w0", 0.0)
    deadlines.begin(assignment, [make_request("a")], 0.0)
    deadlines.end(Completion(assignment, 0.0, seconds, StageReport(seconds)))
    deadlines.begin(assignment, [make_request("a")], 0.0)
    return deadlines


def test_quick_stages_have_a_minute():
    deadlines = begun_again(Assignment(("a",), E, "w0"), 0.1)
    assert deadlines.overdue(LEAST_SECONDS) == [] and deadlines.overdue(LEAST_SECONDS + 1)


def test_a_stage_that_ran_out_of_memory_begins_again_with_all_of_its_time():
    deadlines = Deadlines(RECIPE)
    deadlines.joined("w0", 0.0)
    deadlines.begin(DENOISE, [make_request("a")], 0.0)
    for number in range(1, 8):
        deadlines.saw([step(number)], 20.0 * number)
    for number in range(8):  # as many steps again, none of which is further than the first attempt was
        deadlines.saw([replace(step(number), attempt=1)], 150.0 + 20.0 * number)
    assert deadlines.overdue(290 + 5 * 20.0) == [] and deadlines.overdue(291 + 5 * 20.0)


def test_each_attempt_at_a_stage_without_steps_has_time_of_its_own():
    deadlines = begun_again(Assignment(("a",), V, "w0"), 20.0)
    for attempt in range(4):
        deadlines.saw([WorkerState("w0", V, ("a",), attempt=attempt)], 20.0 * attempt)
    assert deadlines.overdue(60 + 5 * 20.0) == [] and deadlines.overdue(61 + 5 * 20.0)


def test_steps_too_quick_to_be_seen_are_known_from_the_stage():
    deadlines = begun_again(DENOISE, 0.4)
    assert deadlines.overdue(LEAST_SECONDS) == [] and deadlines.overdue(LEAST_SECONDS + 1)


def test_reading_weights_between_turns_is_not_standing_still():
    deadlines = Deadlines(RECIPE)
    deadlines.joined("w0", 0.0)
    first, second = Assignment(("a",), E, "w0"), Assignment(("b",), E, "w0")
    deadlines.begin(first, [make_request("a")], 0.0)
    deadlines.end(Completion(first, 0.0, 0.04, StageReport(0.04)))
    deadlines.begin(second, [make_request("b")], 0.0)
    reads = WorkerState("w0", E, ("b",), is_loading=True)
    for now in range(0, 200, 10):
        deadlines.saw([reads], float(now))
        assert deadlines.overdue(now + LEAST_SECONDS) == []
    deadlines.saw([replace(reads, is_loading=False)], 200.0)
    assert deadlines.overdue(190.0 + LEAST_SECONDS) == [] and deadlines.overdue(191.0 + LEAST_SECONDS)
    deadlines.saw([reads], FIRST_SECONDS + 1)
    assert deadlines.overdue(FIRST_SECONDS + 1), "a read that never ends is one"


@pytest.mark.fault(21)
def test_time_that_the_driver_stood_still_counts_for_no_assignment():
    """Steps take 7 s; the driver is stopped for 100 s, in which its worker takes 14 steps."""
    deadlines = Deadlines(RECIPE)
    deadlines.joined("w0", 0.0)
    deadlines.begin(DENOISE, [make_request("a")], 0.0)
    for number in range(1, 5):
        deadlines.saw([step(number)], 7.0 * number)
    deadlines.stood_still(100.0, 130.0)
    deadlines.saw([step(4)], 130.0)  # what was heard before
    assert deadlines.overdue(130.0) == []
    deadlines.saw([step(19)], 133.0)
    assert deadlines.overdue(133.0 + LEAST_SECONDS) == [] and deadlines.overdue(133.0 + LEAST_SECONDS + 1)


def test_what_a_worker_did_while_the_driver_stood_still_is_not_timed():
    deadlines = Deadlines(RECIPE)
    deadlines.joined("w0", 0.0)
    deadlines.begin(DENOISE, [make_request("a")], 0.0)
    for number in (1, 2):
        deadlines.saw([step(number)], 40.0 * number)
    deadlines.stood_still(400.0, 481.0)
    deadlines.saw([step(7)], 482.0)
    assert deadlines.overdue(482.0 + 5 * 40.0) == [] and deadlines.overdue(482.0 + 5 * 40.0 + 1)


def test_a_worker_that_was_nearly_overdue_is_heard_first():
    deadlines = Deadlines(RECIPE)
    deadlines.joined("w0", 0.0)
    deadlines.begin(DENOISE, [make_request("a")], 0.0)
    for number in (1, 2):
        deadlines.saw([step(number)], 1.0 * number)
    deadlines.stood_still(1000.0, 1061.0)  # 59 of its 60 s had passed
    assert deadlines.overdue(1061.0 + NEWS_SECONDS) == [] and deadlines.overdue(1061.0 + NEWS_SECONDS + 1)


def test_a_host_stage_is_not_blamed_for_a_process_that_its_device_stage_holds_up():
    deadlines = Deadlines(RECIPE)
    deadlines.joined("w0", 0.0)
    mp4, denoise = Assignment(("b",), M, "w0"), DENOISE
    for stage in (mp4, denoise):
        deadlines.begin(stage, [make_request("b")], 0.0)
        deadlines.end(Completion(stage, 0.0, 1.0, StageReport(1.0)))
        deadlines.begin(stage, [make_request("b")], 1.0)
    assert [a for a, _ in deadlines.overdue(2 + LEAST_SECONDS)] == [denoise], "both stand still: one has hung"
    deadlines.saw([step(1)], 1.5 + LEAST_SECONDS)
    assert deadlines.overdue(1.5 + LEAST_SECONDS)[0][0] == mp4, "the device continues without it"
    deadlines.end(Completion(denoise, 0.0, 1.0, StageReport(1.0)))
    assert [a for a, _ in deadlines.overdue(2 + LEAST_SECONDS)] == [mp4], "nothing is beside it"
