"""A cluster that is lost during a run: exit 75 with the hint to rerun, before Ray ends the process in its own way."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NUM_CLIPS = 60
SETTINGS = [
    "placement.device=cpu", "placement.threads=1", "placement.layout=replicated", "placement.devices=1",
    "defaults.height=64", "defaults.width=64", "defaults.num_frames=9", "defaults.num_inference_steps=60",
]  # fmt: skip


@pytest.mark.fault(20)
@pytest.mark.parametrize("moment", ["loading", "rendering"])
@pytest.mark.parametrize("part", ["gcs_server", "raylet"])
def test_a_cluster_that_is_lost_exits_75_and_the_run_can_be_resumed(tmp_path: Path, part: str, moment: str):
    prompts, out = tmp_path / "p.txt", tmp_path / "out"
    prompts.write_text("".join(f"clip {index}\n" for index in range(NUM_CLIPS)))
    arguments = ["render", str(prompts), "-o", str(out), *(word for one in SETTINGS for word in ("--set", one))]
    command = [sys.executable, "-m", "ltx_dist.cli", *arguments]
    process = subprocess.Popen(
        [*command, "--executor", "ray"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        deadline = time.monotonic() + 240
        while not (out / "run.json").exists() or (moment == "rendering" and len(list(out.glob("*.mp4"))) < 2):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        below = psutil.Process(process.pid).children(recursive=True)
        (victim,) = [one for one in below if one.name() == part]
        victim.kill()
        said, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 75, said
    assert "Traceback" not in said and "rerun the same command to resume" in said.splitlines()[-1]
    record = json.loads((out / "run.json").read_text())
    assert record["exit_code"] == 75 and record["done"] + record["remaining"] == NUM_CLIPS
    _, alive = psutil.wait_procs(below, timeout=30)
    assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]
