"""`plan`, `verify` and `submit` work without POSIX, as on a laptop from which batches are sent to GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ltx_dist.cli import app

PROGRAM = Path(__file__).with_name("other_platform.py")
SYSTEMS = ("macos", "windows")


def ltx_dist(system: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, PROGRAM, system, *arguments]
    environment = os.environ | {"COLUMNS": "160"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("a red circle\na blue square\n")
    return path


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_batch_is_planned(system: str, prompts: Path) -> None:
    described = ("--set", "placement.device=cuda", "--set", "placement.devices=2", "--set", "placement.memory_gb=24")
    planned = ltx_dist(system, "plan", prompts, *described)
    assert planned.returncode == 0, planned.stderr
    assert "2 GPUs of 24 GB" in planned.stdout and "cuda:1" in planned.stdout


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_job_is_checked_and_its_server_asked(system: str, prompts: Path) -> None:
    sent = ltx_dist(system, "submit", prompts, "-o", "/shared/clips", "--address", "http://127.0.0.1:9")
    assert sent.returncode == 2 and "Traceback" not in sent.stderr, sent.stderr
    assert "127.0.0.1:9" in sent.stderr
    wrong = ltx_dist(system, "submit", prompts, "-o", "clips", "--address", "http://127.0.0.1:9")
    assert "--output: clips is relative" in wrong.stderr


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered")
    (folder / "prompts.txt").write_text("a red circle\n")
    small = [f"defaults.{one}" for one in ("height=64", "width=64", "num_frames=9", "num_inference_steps=1")]
    settings = [part for one in (*small, "placement.layout=shared") for part in ("--set", one)]
    arguments = ["render", str(folder / "prompts.txt"), "-o", str(folder / "out"), "--executor", "local", *settings]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return folder / "out"


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_folder_is_verified_and_damage_is_found(system: str, rendered: Path, tmp_path: Path) -> None:
    checked = ltx_dist(system, "verify", rendered)
    assert checked.returncode == 0 and "1 of 1 clips are intact" in checked.stdout, checked.stderr
    (clip,) = rendered.glob("*.mp4")
    whole = clip.read_bytes()
    clip.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        checked = ltx_dist(system, "verify", rendered)
    finally:
        clip.write_bytes(whole)
    assert checked.returncode == 3 and "0 of 1 clips are intact" in checked.stdout, checked.stderr


def test_rendering_on_windows_names_what_to_use(prompts: Path, tmp_path: Path) -> None:
    result = ltx_dist("windows", "render", prompts, "-o", tmp_path / "out")
    assert result.returncode == 2 and "WSL2" in result.stderr and "Traceback" not in result.stderr, result.stderr
