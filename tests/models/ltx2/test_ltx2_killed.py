"""A run of LTX-2.x that is killed at any stage resumes from there, and gives the same frames and sound."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tiny_ltx2 as tiny
import torch
from typer.testing import CliRunner

from ltx_dist.cli import app

STAGES = ("encode_text", "encode_image", "denoise", "refine", "decode", "encode_video")
CASES = [("2.5", stage) for stage in STAGES] + [("2.0", "refine"), ("2.3", "decode")]
LEFT = {
    "encode_text": set(STAGES),
    "encode_image": set(STAGES) - {"encode_text"},
    "denoise": {"denoise", "refine", "decode", "encode_video"},
    "refine": {"refine", "decode", "encode_video"},
    "decode": {"decode", "encode_video"},
    "encode_video": {"decode", "encode_video"},  # frames are never saved
}
"""Stages that the next run has to run, by the stage in which a run died: earlier outputs are spooled or cached."""

GUIDED = {
    "height": 128, "width": 192, "num_frames": 17, "max_sequence_length": 16, "spatio_temporal_guidance_blocks": [1],
    "stg_scale": 1, "audio_stg_scale": 1, "num_inference_steps": 2, "guidance_scale": 3, "sigmas": [1.0, 0.7],
    "second_pass": {"sigmas": [0.909375, 0.421875], "audio": "first"},
}  # fmt: skip
"""A clip that runs every stage: two passes, the first guided, with keyframes."""


def arguments(prompts: Path, model: Path, out: Path) -> list[str]:
    settings = {"model.checkpoint": model, "placement.threads": 1, "cache.embeddings": out.parent / "cache"}
    return ["render", str(prompts), "-o", str(out), *(f"--set={key}={value}" for key, value in settings.items())]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[list[str], Path]]:
    """How to resume, and the folder that was left behind, by case. The stage "" stands for an undisturbed run."""
    root = tmp_path_factory.mktemp("killed")
    noise = np.random.default_rng(0).integers(0, 255, (5, 8, 3), dtype=np.uint8)
    PIL.Image.fromarray(noise).resize((96, 64), PIL.Image.Resampling.BICUBIC).save(root / "picture.png")
    keyframes = [{"image": "picture.png"}, {"image": "picture.png", "frame_index": 9, "strength": 0.8}]
    prompts = root / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": "a robot", "name": "clip", "conditions": keyframes} | GUIDED) + "\n")
    models = {version: tiny.make_checkpoint(version, root / version) for version in tiny.VERSIONS}
    made: dict[tuple[str, str], tuple[list[str], Path]] = {}
    for version, stage in [*CASES, *((version, "") for version in tiny.VERSIONS)]:
        out = root / f"{version}-{stage or 'whole'}" / "out"
        made[version, stage] = arguments(prompts, models[version], out), out
    script = Path(__file__).parent / "killed_ltx2.py"
    ended = subprocess.run(
        [sys.executable, str(script)],
        input=json.dumps([(stage, made[version, stage][0]) for version, stage in CASES]),
        capture_output=True,
        text=True,
    )
    assert ended.stdout.split() == [str(-signal.SIGKILL)] * len(CASES), ended.stderr
    return made


def run(command: list[str], out: Path) -> dict[str, Any]:
    """The sidecar."""
    torch.set_num_threads(1)
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    return json.loads((out / "clip.json").read_text())


@pytest.fixture(scope="module")
def whole(killed: Any) -> dict[str, dict[str, Any]]:
    """Sidecars of undisturbed runs, by version."""
    return {version: run(*killed[version, ""]) for version in tiny.VERSIONS}


@pytest.mark.parametrize(("version", "stage"), CASES)
def test_a_killed_run_resumes_after_what_it_had_made(killed: Any, whole: Any, version: str, stage: str) -> None:
    command, out = killed[version, stage]
    assert not (out / "clip.mp4").exists()
    again, before = run(command, out), whole[version]
    assert set(before["stages"]) == set(STAGES)
    assert set(again["stages"]) == LEFT[stage], "what was finished is not run again"
    for digest in ("latents_sha256", "frames_sha256", "audio_sha256", "mp4_sha256"):
        assert again[digest] == before[digest], digest
