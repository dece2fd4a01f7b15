"""run.json of a small batch, number by number."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from builders import RECIPE, STAGES, D, E, V

from ltx_dist.pipeline.work import Assignment, Completion, StageReport
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.report.run_record import Counts, build_run_record, write_run_record
from ltx_dist.store.publisher import Publisher

PLACEMENT = Placement(
    recipe=RECIPE,
    layout="pinned",
    workers=(
        Worker("gpu-0", (E, V), "cuda", device_index=0),
        Worker("gpu-1", (D,), "cuda", device_index=1),
    ),
    max_queued=dict.fromkeys(STAGES, 2),
)


def event(request_id: str, stage: str, worker_id: str, started: float, finished: float) -> Completion:
    report = StageReport(finished - started, load_seconds=0.25)
    return Completion(Assignment((request_id,), stage, worker_id), started, finished, report)


COMPLETIONS = [
    event("001", D, "gpu-1", 1.0, 5.0),
    event("001", E, "gpu-0", 0.0, 1.0),
    event("002", E, "gpu-0", 1.0, 2.0),
    event("001", V, "gpu-0", 5.0, 7.0),
    replace(event("002", D, "gpu-1", 5.0, 8.0), report=StageReport(3.0, error="boom")),
]


def test_the_record_of_a_batch() -> None:
    record = build_run_record(Counts(5, 2, 1, 2, skipped=1), PLACEMENT, COMPLETIONS, exit_code=75)
    assert {key: record[key] for key in ("submitted", "done", "failed", "remaining", "skipped", "exit_code")} == {
        "submitted": 5, "done": 2, "failed": 1, "remaining": 2, "skipped": 1, "exit_code": 75
    }  # fmt: skip
    assert record["layout"] == "pinned"
    assert record["workers"] == [
        {"worker_id": "gpu-0", "stages": ["encode_text", "decode"], "device": "cuda:0", "device_name": "cpu"},
        {"worker_id": "gpu-1", "stages": ["denoise"], "device": "cuda:1", "device_name": "cpu"},
    ]
    assert record["makespan_seconds"] == 8.0
    assert record["lower_bound_seconds"] == 7.0  # clip 001 alone; the failed denoise does not count
    assert record["busy_share"] == {"gpu-0": 0.5, "gpu-1": 7 / 8}


def test_events_are_one_a_completion_by_start() -> None:
    events = build_run_record(Counts(2, 1, 1, 0), PLACEMENT, COMPLETIONS, exit_code=3)["events"]
    assert [(e["started"], e["request_id"], e["stage"], e["worker_id"]) for e in events] == [
        (0.0, "001", "encode_text", "gpu-0"),
        (1.0, "002", "encode_text", "gpu-0"),
        (1.0, "001", "denoise", "gpu-1"),
        (5.0, "001", "decode", "gpu-0"),
        (5.0, "002", "denoise", "gpu-1"),
    ]
    assert events[0] == {
        "request_id": "001", "stage": "encode_text", "worker_id": "gpu-0",
        "started": 0.0, "finished": 1.0, "load_seconds": 0.25,
    }  # fmt: skip
    assert events[-1]["error"] == "boom"


def test_a_run_with_nothing_left_to_do_has_a_record() -> None:
    record = build_run_record(Counts(3, 3, 0, 0, skipped=3), PLACEMENT, [], exit_code=0)
    assert (record["makespan_seconds"], record["lower_bound_seconds"], record["events"]) == (0.0, 0.0, [])
    assert record["busy_share"] == {"gpu-0": 0.0, "gpu-1": 0.0}


@pytest.mark.parametrize("counts", [(3, 1, 1, 0, 0), (3, 2, 1, 1, 0), (3, 1, 1, 1, 2)])
def test_counts_that_do_not_add_up_are_our_own_mistake(counts: tuple[int, int, int, int, int]) -> None:
    with pytest.raises(AssertionError):
        Counts(*counts)


def test_it_is_written_as_json_in_one_step(tmp_path: Path) -> None:
    Publisher(tmp_path, {})
    record = build_run_record(Counts(2, 1, 1, 0), PLACEMENT, COMPLETIONS, exit_code=3)
    for _ in range(2):
        write_run_record(tmp_path, record)
    assert json.loads((tmp_path / "run.json").read_text()) == record
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["run.json"]
