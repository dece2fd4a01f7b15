"""The rings hold: what may import what, and what stays out of memory until it is needed."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import ltx_dist

PACKAGE = Path(ltx_dist.__file__).parent
HEAVY = ("torch", "ray", "diffusers", "transformers")
FILES = sorted(PACKAGE.rglob("*.py"))

MAY_IMPORT = {
    "scheduling": {"scheduling", "types"},
    "checkpoints": {"checkpoints", "reading", "wording", "user_cache"},
    "inputs": {"inputs", "types", "config", "presets", "checkpoints", "reading", "wording"},
    "stages": {"stages", "types", "checkpoints"},
    "output": {"output", "scheduling", "types", "config", "config_file", "user_cache"},
    "doctor": {"doctor", "checkpoints", "presets", "config", "output", "execution"},
}
"""Rooms of ltx_dist that a room's files may import; the execution room and the files at the top may import all."""


def heavy_modules_after(statement: str) -> list[str]:
    """Those of HEAVY that a fresh interpreter holds after running the statement."""
    code = f"import sys\n{statement}\nprint()\nprint('held:', *[name for name in {HEAVY} if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    return printed.splitlines()[-1].split()[1:]


LIGHT = [
    "ltx_dist", "ltx_dist.types", "ltx_dist.config", "ltx_dist.inputs.prompts", "ltx_dist.presets",
    "ltx_dist.checkpoints.checkpoint", "ltx_dist.checkpoints.digests", "ltx_dist.batch", "ltx_dist.run",
    "ltx_dist.submission", "ltx_dist.execution.job_server", "ltx_dist.doctor.storage",
    "ltx_dist.plan", "ltx_dist.cli", "ltx_dist.scheduling.scheduler", "ltx_dist.scheduling.placement",
    "ltx_dist.scheduling.simulator", "ltx_dist.scheduling.timeline", "ltx_dist.output.publisher",
    "ltx_dist.execution.renderer",
]  # fmt: skip


@pytest.mark.parametrize("module", LIGHT)
def test_planning_and_bad_input_cost_no_heavy_import(module: str):
    assert heavy_modules_after(f"import {module}") == []


def test_help_and_plan_import_nothing_heavy(tmp_path: Path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle\n")
    for arguments in (["--help"], ["render", "--help"], ["plan", str(prompts)]):
        run = f"sys.argv = ['ltx-dist', *{arguments}]\nfrom ltx_dist.cli import main\ntry:\n main()"
        assert heavy_modules_after(f"{run}\nexcept SystemExit: pass") == [], arguments


def imported_modules(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def test_ray_is_imported_by_the_files_that_carry_its_name():
    importers = [path.name for path in FILES if any(name.split(".")[0] == "ray" for name in imported_modules(path))]
    assert all(name.startswith("ray_") for name in importers) and "ray_executor.py" in importers


def test_diffusers_and_transformers_are_imported_in_the_model_ring_only():
    for path in FILES:
        roots = {name.split(".")[0] for name in imported_modules(path)}
        if roots & {"diffusers", "transformers"}:
            assert path.parent.name == "stages", path


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_arrows_between_rooms_go_one_way(room: str):
    for path in sorted((PACKAGE / room).glob("*.py")):
        rooms = {name.split(".")[1] for name in imported_modules(path) if name.startswith("ltx_dist.")}
        assert rooms <= MAY_IMPORT[room], f"{path}: {rooms - MAY_IMPORT[room]}"


def test_nothing_imports_the_command_line():
    assert [path for path in FILES if "ltx_dist.cli" in imported_modules(path)] == []


SCRIPTS = [path for folder in ("benchmarks", "tools") for path in sorted((PACKAGE.parent / folder).glob("*.py"))]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_import_what_there_is(script: Path):
    """Most of them are run by hand: a name that has moved would be found out then."""
    for node in ast.walk(ast.parse(script.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ltx_dist"):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                assert hasattr(module, alias.name) or find_spec(f"{node.module}.{alias.name}"), alias.name
