"""benchmarks/gpu.py at tiny size: the comparison that a GPU will run, with equal latents in every residency."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_it_runs_on_a_cpu_and_finds_equal_latents() -> None:
    command = [sys.executable, "benchmarks/gpu.py", "--scale", "tiny", "--clips", "2"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert ended.returncode == 0, ended.stderr
    for way in ("resident", "time_sliced", "streamed"):
        assert f"  {way} " in ended.stdout, ended.stdout
    assert "latents are equal in all of them" in ended.stdout
    assert "waves / (E+D+V)" in ended.stdout
    assert "a clip, so many in a pass, denoise: 1: " in ended.stdout
