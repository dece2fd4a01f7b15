"""Every test has a tier, the tier `fast` needs neither torch nor Ray, and every fault that was found has a test."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tiers import HEAVY, LONGEST, TIER_OF, tier_of

TESTS = Path(__file__).parent
ROOT = TESTS.parent
FAULT = re.compile(r"^@pytest\.mark\.fault\((\d+)\)$", re.MULTILINE)
FAULTS_NOTE = "\n## 2026-11-28 Faults that have numbered tests\n"
LISTED_FAULT = re.compile(r"^\| (\d+) \| .+ \|$", re.MULTILINE)


def names_in(requirements: list[str]) -> set[str]:
    found = (re.match(r"[A-Za-z0-9_.-]+", line) for line in requirements)
    return {match[0].lower().replace("_", "-") for match in found if match}


def test_every_tier_names_a_place_that_exists():
    for place in TIER_OF:
        path, _, name = place.partition("::")
        assert (TESTS / path).exists(), place
        assert not name or f"def {name}(" in (TESTS / path).read_text("utf-8"), place
    for path in LONGEST:
        assert (TESTS / path).is_file(), path


def test_the_longest_path_counts():
    assert tier_of(Path("estimates/test_bounds.py")) == "fast"
    assert tier_of(Path("estimates/test_memory.py")) == "model"
    assert tier_of(Path("models/ltx_video/test_parity.py")) == "model"
    assert tier_of(Path("test_new.py")) == "system"


def test_nothing_heavy_can_be_imported_in_the_tier_fast(request: pytest.FixtureRequest):
    """This is checked in this process if it runs the tier `fast`, or else in another that imports its test files."""
    if request.config.getoption("--tier") == "fast":
        for name in HEAVY:
            with pytest.raises(ModuleNotFoundError):
                importlib.import_module(name)
        return
    this = f"{Path(__file__).name}::{request.node.name}"
    collect = [sys.executable, "-m", "pytest", "--tier", "fast", "-q", "-p", "no:cacheprovider"]
    listed = subprocess.run([*collect, "--collect-only"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert listed.returncode == 0, listed.stdout + listed.stderr
    run = subprocess.run([*collect, f"tests/{this}"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0 and "1 passed" in run.stdout, run.stdout + run.stderr


def test_the_environment_of_the_tier_fast_lacks_only_what_is_heavy():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    light = names_in((ROOT / "launch/fast.txt").read_text("utf-8").splitlines())
    assert names_in(project["dependencies"]) - light == set(HEAVY)
    assert light - names_in(project["dependencies"]) <= names_in(project["optional-dependencies"]["dev"])


def test_every_fault_has_a_test_that_holds_it():
    marked = {int(number) for path in TESTS.rglob("test_*.py") for number in FAULT.findall(path.read_text("utf-8"))}
    _, _, note = (ROOT / "docs/decisions.md").read_text("utf-8").partition(FAULTS_NOTE)
    listed = [int(number) for number in LISTED_FAULT.findall(note.partition("\n## ")[0])]
    assert listed == list(range(1, len(listed) + 1))
    assert marked == set(listed)
