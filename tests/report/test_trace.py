"""trace.json in Chrome's trace event format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_report import make_folder

from ltx_dist.report.trace import chrome_trace, write_trace


def test_a_thread_a_worker_and_a_slice_a_stage(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, ["a", "b"], failed=["b"], exit_code=3)
    trace = json.loads(write_trace(folder).read_text())
    events = trace["traceEvents"]
    names = {(e["name"], e["tid"]): e["args"] for e in events if e["ph"] == "M"}
    assert names["thread_name", 1] == {"name": "gpu-0 (cuda:0)"}
    assert names["thread_name", 2] == {"name": "gpu-1 (cuda:1)"}
    assert names["process_name", 0] == {"name": "ltx-dist, pinned"}
    slices = [e for e in events if e["ph"] == "X"]
    assert sorted({e["name"] for e in slices if e["cat"] != "load"}) == ["decode", "denoise", "encode_text"]
    denoise = next(e for e in slices if e["name"] == "denoise")
    assert (denoise["ts"], denoise["dur"], denoise["tid"]) == (700_000, 1_000_000, 2)
    assert denoise["args"] == {"clip": "a"}
    assert [e["args"] for e in slices if "error" in e["args"]] == [
        {"clip": "b", "error": "CUDA out of memory\nat <layer 3>"}
    ]
    assert trace["otherData"]["exit_code"] == 3


def test_loading_ends_where_the_work_begins(tmp_path: Path) -> None:
    record = json.loads((make_folder(tmp_path, ["a"]) / "run.json").read_text())
    slices = [e for e in chrome_trace(record)["traceEvents"] if e["ph"] == "X"]
    load, work = slices[:2]
    assert (load["name"], work["name"]) == ("load for encode_text", "encode_text")
    assert load["ts"] + load["dur"] == work["ts"]
    assert all(isinstance(e[key], int) and e[key] >= 0 for e in slices for key in ("ts", "dur", "pid", "tid"))


def test_without_a_run_there_is_no_trace(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"run\.json: not found"):
        write_trace(tmp_path)
