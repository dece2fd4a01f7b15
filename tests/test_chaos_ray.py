"""The short forms of `benchmarks/chaos_ray.py`: real actors and raylets that die, tiny real models, equal clips."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "chaos_ray.py"


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("part", ["poison", "nodes"])
def test_what_dies_under_ray_costs_no_other_clip(part: str):
    process = subprocess.run(
        [sys.executable, SCRIPT, part, "--short"], capture_output=True, text=True, timeout=600, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr[-3000:]
    (line,) = [line for line in process.stdout.splitlines() if line.startswith("{")]
    assert json.loads(line)["ok"]
