"""Which room may import which, and what is not imported until it is needed."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

import ltx_dist

PACKAGE = Path(ltx_dist.__file__).parent
HEAVY = ("torch", "ray", "diffusers", "transformers")
FILES = sorted(PACKAGE.rglob("*.py"))

ROOMS = (
    "cli", "commands", "demo", "doctor", "api", "run", "cluster", "report", "worker", "models", "weights", "store",
    "engine", "planning", "scheduling", "placement", "inputs", "checkpoints", "estimates", "media", "pipeline",
    "strict_files", "messages", "user_cache", "environment",
)  # fmt: skip
"""The rooms from top to bottom: a file imports its own room and rooms below it."""

KNOWN: set[tuple[str, str]] = set()
"""Upward imports that still have to be removed."""


def heavy_modules_after(statement: str) -> list[str]:
    """The packages of HEAVY that a fresh interpreter has loaded after running the statement."""
    code = f"import sys\n{statement}\nprint()\nprint('held:', *[name for name in {HEAVY} if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    return printed.splitlines()[-1].split()[1:]


LIGHT = [
    "ltx_dist", "ltx_dist.pipeline.work", "ltx_dist.inputs.config", "ltx_dist.inputs.prompts",
    "ltx_dist.models.ltx_video.presets", "ltx_dist.checkpoints.checkpoint", "ltx_dist.checkpoints.digests",
    "ltx_dist.run.batch", "ltx_dist.run.run", "ltx_dist.cluster.submission", "ltx_dist.cluster.job_server",
    "ltx_dist.doctor.storage", "ltx_dist.commands.plan_table", "ltx_dist.cli", "ltx_dist.scheduling.scheduler",
    "ltx_dist.placement.placement", "ltx_dist.planning.simulator", "ltx_dist.pipeline.timeline",
    "ltx_dist.store.publisher", "ltx_dist.engine.loop", "ltx_dist.api.rendering", "ltx_dist.api.planning",
]  # fmt: skip


def test_planning_and_bad_input_cost_no_heavy_import():
    assert heavy_modules_after(f"import {', '.join(LIGHT)}") == []


def test_help_and_plan_import_nothing_heavy(tmp_path: Path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle\n")
    for arguments in (["--help"], ["render", "--help"], ["plan", str(prompts)]):
        run = f"sys.argv = ['ltx-dist', *{arguments}]\nfrom ltx_dist.cli import main\ntry:\n main()"
        assert heavy_modules_after(f"{run}\nexcept SystemExit: pass") == [], arguments


@cache
def imported_modules(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def test_ray_is_imported_in_cluster_only():
    for path in FILES:
        if any(name.split(".")[0] == "ray" for name in imported_modules(path)):
            assert path.parent.name == "cluster", path


def test_diffusers_and_transformers_are_imported_by_models_and_weights_only():
    for path in FILES:
        roots = {name.split(".")[0] for name in imported_modules(path)}
        if roots & {"diffusers", "transformers"}:
            assert room_of(path) in ("models", "weights"), path


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_each_room_imports_only_rooms_below_it():
    upward: set[tuple[str, str]] = set()
    for path in FILES:
        for name in imported_modules(path):
            parts = name.split(".")
            if parts[0] != "ltx_dist" or len(parts) == 1 or room_of(path) == "__init__":
                continue
            if ROOMS.index(parts[1]) < ROOMS.index(room_of(path)):
                upward.add((str(path.relative_to(PACKAGE)), name))
    assert upward == KNOWN


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md"])
def test_the_docs_list_the_rooms_in_their_order(page: str):
    text = (PACKAGE.parent / page).read_text("utf-8")
    table = text.partition("<!-- rooms -->")[2].partition("<!-- /rooms -->")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == ROOMS


def test_pure_rooms_import_no_torch_ray_clock_or_file():
    pure = ("scheduling", "placement", "planning", "estimates", "pipeline")
    for path in (path for path in FILES if room_of(path) in pure and path.name != "local_devices.py"):
        roots = {name.split(".")[0] for name in run_time_imports(path)}
        assert not roots & {"torch", "ray", "time", "pathlib", "os", "subprocess", "diffusers"}, path


def run_time_imports(path: Path) -> set[str]:
    """Modules imported outside `if TYPE_CHECKING`."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    nodes = list(ast.walk(tree))
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return found | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def test_nothing_imports_the_command_line():
    assert [path for path in FILES if "ltx_dist.cli" in imported_modules(path)] == []


SCRIPTS = [path for folder in ("benchmarks", "tools") for path in sorted((PACKAGE.parent / folder).glob("*.py"))]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_import_what_there_is(script: Path):
    """Most scripts are only run by hand, so a name that has moved would be noticed late."""
    for node in ast.walk(ast.parse(script.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ltx_dist"):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                assert hasattr(module, alias.name) or find_spec(f"{node.module}.{alias.name}"), alias.name
