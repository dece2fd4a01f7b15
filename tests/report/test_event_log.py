"""--json-events: what a program that follows a batch reads."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from builders import RECIPE, STAGES, D
from test_progress import result

from ltx_dist.pipeline.work import Assignment, Completion, StageReport
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.report.event_log import EventLog
from ltx_dist.report.run_record import RunProgress

RUN = RunProgress(
    Placement(RECIPE, "shared", (Worker("cpu:0", STAGES, "cpu"),), dict.fromkeys(STAGES, 2)), ("a", "b", "c"), {}
)


def noon() -> datetime:
    return datetime(2026, 11, 24, 12, tzinfo=UTC)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_a_batch_is_told_from_its_start_to_its_end(tmp_path: Path) -> None:
    path, run = tmp_path / "events.jsonl", RunProgress(RUN.placement, RUN.names, {}, skipped=1)
    with closing(EventLog(path, noon)) as log, log.batch(run, print):
        log.stage_ended(Completion(Assignment(("a",), D, "cpu:0"), 1.0, 3.0, StageReport(2.0)))
        log.clip_ended(result("a\nü"))
        run.done = 1
        assert len(lines(path)) == 3, "each line is there at once"
        log.clip_ended(result("b", "denoise: RuntimeError: out of memory\nat layer 3"))
        run.failed, run.exit_code = 1, 3
    started, stage, done, failed, ended = lines(path)
    assert started["event"] == "batch_started" and started["time"] == "2026-11-24T12:00:00.000+00:00"
    assert (started["submitted"], started["already_done"], started["layout"]) == (3, 1, "shared")
    assert stage["event"] == "stage_ended"
    assert (stage["request_id"], stage["stage"], stage["started"], stage["finished"]) == ("a", "denoise", 1.0, 3.0)
    assert (done["event"], done["request_id"], done["mp4"]) == ("clip_done", "a\nü", "a\nü.mp4")
    assert (failed["event"], failed["error"]) == ("clip_failed", "denoise: RuntimeError: out of memory\nat layer 3")
    assert ended == {
        "event": "batch_ended", "time": "2026-11-24T12:00:00.000+00:00",
        "done": 2, "failed": 1, "remaining": 0, "exit_code": 3,
    }  # fmt: skip


def test_a_rerun_goes_on_in_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for _ in range(2):
        with closing(EventLog(path)) as log, log.batch(RUN, print):
            pass
    assert [line["event"] for line in lines(path)] == ["batch_started", "batch_ended"] * 2


def test_a_file_that_cannot_be_written_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--json-events: cannot write .*: No such file or directory"):
        EventLog(tmp_path / "none" / "events.jsonl")
