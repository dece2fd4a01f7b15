"""Short forms of the proofs in benchmarks/, so that they keep working between two long runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "arguments", "proved"),
    [
        ("chaos_kills.py", ["--kills", "8", "--clips", "6"], "8 SIGKILLs over"),
        ("chaos_storage.py", [], "vanishing: exit 74"),
        ("chaos_hashes.py", ["--without-ray"], "only they were rendered again"),
    ],
)
def test_a_proof_holds(script: str, arguments: list[str], proved: str):
    # This runs in an interpreter of its own, because it forks, which a process that has run torch or Ray must not do.
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert proved in result.stdout
