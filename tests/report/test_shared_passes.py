"""A pass that several clips share counts once as work and names all of them, wherever people and programs see it."""

from __future__ import annotations

import pytest
from builders import RECIPE, STAGES, D, E, V

from ltx_dist.estimates.costs import UniformCosts
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.timeline import busy_shares, gantt
from ltx_dist.pipeline.work import Assignment, Completion, RenderResult, StageReport, WorkerState
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.planning.losses import measured_bound
from ltx_dist.planning.pace import planned_ends
from ltx_dist.report.advice import advice
from ltx_dist.report.bars import lanes_of
from ltx_dist.report.live_view import _clips
from ltx_dist.report.run_record import Counts, build_run_record, recorded_completions
from ltx_dist.report.tally import Tally
from ltx_dist.report.trace import chrome_trace

WORKER = Worker("gpu-0", STAGES, "cuda", batch_size=2)
PLACEMENT = Placement(RECIPE, "shared", (WORKER,), dict.fromkeys(STAGES, 2))


def ran(names: str, stage: str, started: float, finished: float) -> Completion:
    return Completion(
        Assignment(tuple(names), stage, "gpu-0"), started, finished, StageReport(finished - started, load_seconds=0.5)
    )


COMPLETIONS = [
    ran("ab", E, 0, 1),
    ran("ab", D, 1, 7),
    ran("a", V, 7, 9),
    ran("b", V, 9, 12),
]
RECORD = build_run_record(Counts(2, 2, 0, 0), PLACEMENT, COMPLETIONS, 0)


def test_the_record_names_the_others_and_reads_back_as_it_was() -> None:
    assert [(e["request_id"], e.get("shared_with")) for e in RECORD["events"]] == [
        ("a", ["b"]), ("a", ["b"]), ("a", None), ("b", None),
    ]  # fmt: skip
    assert [c.assignment for c in recorded_completions(RECORD)] == [c.assignment for c in COMPLETIONS]


def test_its_time_counts_once_and_each_clip_has_its_part_in_the_bound() -> None:
    assert busy_shares(COMPLETIONS, RECIPE) == {"gpu-0": 1.0}
    assert measured_bound(COMPLETIONS, [WORKER], RECIPE, UniformCosts()).seconds == pytest.approx(12)
    assert RECORD["losses"]["work"] == pytest.approx(12)
    assert planned_ends(COMPLETIONS) == [9, 12]
    two = [WORKER, Worker("gpu-1", STAGES, "cuda")]
    assert measured_bound(COMPLETIONS, two, RECIPE, UniformCosts()).seconds == pytest.approx(0.5 + 3 + 3), (
        "b: its parts and decode"
    )


def test_the_picture_says_how_many() -> None:
    picture = gantt(COMPLETIONS, ["gpu-0"], RECIPE, width=60)
    assert "D1+1===" in picture and "V1===" in picture and "V2===" in picture


def test_the_page_the_trace_and_the_log_tell_of_the_company() -> None:
    (lane,), names = lanes_of(RECORD, recorded_completions(RECORD), RECIPE)
    assert names == ["a", "b"]
    clips = {RECIPE.names[bar.stage]: bar.clips for bar in lane.bars if 0 in bar.clips}
    assert (clips["denoise"], clips["decode"]) == ([0, 1], [0])
    slices = [e for e in chrome_trace(RECORD)["traceEvents"] if e.get("name") == "denoise"]
    assert [e["args"]["clip"] for e in slices] == ["a, b"]
    assert "only more or faster devices" in advice(RECORD, RECIPE)
    request = RenderRequest("a", "p", "", 64, 64, 9, 25.0, 8, 3.0, 0.0, 0, 0.05, 0.025, 32)
    line = Tally(RECIPE, 2, 0, lambda: 0.0).add(RenderResult(request, "done", tuple(COMPLETIONS[:3])))
    assert line.endswith("encode 1.0 of 2 denoise 6.0 of 2 decode 2.0")


def test_the_live_view_shows_the_number_before_a_name_that_may_be_cut() -> None:
    assert _clips(WorkerState("w", D, ("a-long-name", "b", "c"))) == "+2 a-long-name"
    assert _clips(WorkerState("w", D, ("a",))) == "a" and _clips(WorkerState("w")) == ""
