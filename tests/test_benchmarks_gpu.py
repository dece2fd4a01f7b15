"""benchmarks/gpu.py at tiny size on a CPU: every probe ends, and what was measured is kept."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "benchmarks/gpu.py", "--scale", "tiny"]


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_every_probe_ends_on_a_cpu_and_what_has_an_aim_reaches_it(tmp_path: Path) -> None:
    out = tmp_path / "gpu.jsonl"
    # Forked, because 20 interpreters would spend most of the time importing torch and diffusers. The tests below run
    # probes in interpreters of their own.
    command = [*COMMAND, "--fork", "--budget-s", "1500", "--out", str(out)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1600)
    assert ended.returncode == 0, ended.stderr
    rows = rows_of(out)
    assert [row for row in rows if row.get("ended") != "done" and "ended" in row] == []
    assert [row for row in rows if row.get("ok") is False] == []
    parity = [row for row in rows if row["probe"] == "parity"]
    assert len([row for row in parity if "ok" in row]) == 2 * 7, "diffusers twice, five ways, float8; of two kinds"
    assert {"parity_2b", "parity_13b", "capped"} <= {row["probe"] for row in rows if row.get("ok")}
    table = subprocess.run([*COMMAND, "--table", str(out)], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "### parity: done" in table.stdout and "| 0.9.1 LTXPipeline: streamed | yes |" in table.stdout


def test_a_probe_that_no_longer_fits_is_skipped_and_says_so(tmp_path: Path) -> None:
    out = tmp_path / "gpu.jsonl"
    subprocess.run([*COMMAND, "--budget-s", "0", "--out", str(out)], cwd=ROOT, check=True, capture_output=True)
    rows = rows_of(out)
    assert len(rows) > 15 and {row["ended"] for row in rows} == {"skipped"}
    assert rows[0]["error"].endswith("s of the budget are left")


def test_what_was_measured_before_it_was_killed_stands(tmp_path: Path) -> None:
    out = tmp_path / "gpu.jsonl"
    command = [*COMMAND, "--only", "facts", "--only", "slots", "--out", str(out)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("facts"), "the first probe has ended"
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    process.wait()
    rows = rows_of(out)
    assert rows[0]["case"] == "versions" and rows[-1] == {
        "probe": "facts",
        "ended": "done",
        "seconds": rows[-1]["seconds"],
    }


def test_a_probe_that_fails_is_a_line_and_costs_no_other_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu
    from gpu_probes.probe import Probe

    out = tmp_path / "gpu.jsonl"
    gpu.run_all([Probe("none", "card.none", 1, 1), Probe("hangs", "card.none", 1, 1)], "tiny", 60.0, out)
    rows = rows_of(out)
    assert [row["ended"] for row in rows] == ["failed", "failed"]
    assert rows[0]["error"].startswith("StopIteration"), "the last line that it wrote"
