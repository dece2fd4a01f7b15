"""The command on Ray while its worker is killed from outside; benchmarks/chaos_ray.py has more tests of this kind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
import tiny

SETTINGS = [
    "defaults.height=64", "defaults.width=64", "defaults.num_frames=9", "defaults.num_inference_steps=30",
    "placement.device=cpu", "placement.threads=1", "placement.layout=replicated", "placement.devices=1",
    "output.preset=ultrafast",
]  # fmt: skip


def hashes(out: Path) -> dict[str, str]:
    return {path.stem: json.loads(path.with_suffix(".json").read_bytes())["mp4_sha256"] for path in out.glob("*.mp4")}


def worker_pids() -> set[int]:
    """Process ids of the live workers of all runs on the cluster."""
    actors = ray._private.state.actors().values()
    return {a["Pid"] for a in actors if a["ActorClassName"] == "StageWorker" and a["State"] == "ALIVE"}


@pytest.mark.ray
@pytest.mark.slow
def test_a_worker_killed_while_a_clip_is_published_costs_no_clip(ray_cluster: None, tmp_path: Path):
    checkpoint = tiny.save_checkpoint(tmp_path / "checkpoint", "0.9.5")
    (tmp_path / "prompts.txt").write_text("one\ntwo\nthree\nfour\nfive\nsix\n")
    words = [word for setting in [f"model.checkpoint={checkpoint}", *SETTINGS] for word in ("--set", setting)]
    render = [sys.executable, "-m", "ltx_dist.cli", "render", str(tmp_path / "prompts.txt"), *words]
    peace, out = tmp_path / "peace", tmp_path / "out"
    subprocess.run([*render, "-o", peace, "--executor", "local"], check=True, capture_output=True)

    of_others = worker_pids()
    address = ray.get_runtime_context().gcs_address
    process = subprocess.Popen(
        [*render, "-o", out, "--executor", "ray", "--address", address],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    while not any(out.glob("*.mp4")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.005)
    (worker,) = worker_pids() - of_others
    os.kill(worker, signal.SIGKILL)
    said, _ = process.communicate(timeout=180)
    assert process.returncode == 0, said
    assert any(event.get("failure") for event in json.loads((out / "run.json").read_bytes())["events"]), said
    assert hashes(out) == hashes(peace) and len(hashes(out)) == 6
