"""`ray job submit` to a real `ray start --head` on this machine makes the same clips as a local run."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from raylets import BIN, raylets

PROMPTS = [
    {"prompt": "a red circle moving right on a black background", "num_inference_steps": 4},
    {"prompt": "a green square moving up on a navy background", "num_inference_steps": 3, "seed": 11},
    {"prompt": "a blue triangle", "num_inference_steps": 2, "guidance_scale": 1.0, "name": "blue"},
]


def digests(out: Path) -> dict[str, tuple[str, str]]:
    sidecars = [json.loads(path.with_suffix(".json").read_text()) for path in sorted(out.glob("*.mp4"))]
    return {s["request"]["request_id"]: (s["latents_sha256"], s["mp4_sha256"]) for s in sidecars}


@pytest.mark.ray
@pytest.mark.slow
def test_a_submitted_job_leaves_the_clips_of_a_local_run(tmp_path: Path):
    work, local, remote = tmp_path / "work", tmp_path / "local", tmp_path / "remote"
    work.mkdir()
    (work / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PROMPTS))
    options = ["--set", "placement.device=cpu", "--set", "placement.threads=1"]
    pinned = ["--set", "placement.layout=pinned"]
    render = [BIN / "ltx-dist", "render", "prompts.jsonl", *options]
    subprocess.run([*render, "-o", local, "--executor", "local"], cwd=work, check=True, capture_output=True)
    with raylets() as addresses:
        submit = [BIN / "ray", "job", "submit", "--address", addresses.jobs, "--working-dir", str(work), "--"]
        command = [*submit, "ltx-dist", "render", "prompts.jsonl", *options, *pinned, "-o", str(remote)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert "3 workers as Ray actors" in result.stdout, "the job joined the cluster by itself"
    assert json.loads((remote / "run.json").read_text())["done"] == 3
    assert digests(remote) == digests(local) and len(digests(local)) == 3
