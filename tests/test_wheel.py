"""The package works without a checkout."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
TOOL = ROOT / "tools" / "check_wheel.py"


def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_wheel", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def texts(path: Path) -> Iterator[str]:
    """The string constants of a module without its docstrings."""
    tree = ast.parse(path.read_text("utf-8"))
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value


def test_no_message_names_a_file_that_only_a_checkout_has() -> None:
    pattern, elsewhere = tool().ONLY_IN_A_CHECKOUT, ("huggingface.co", "github.com", "docs/source/en/", "/configs")
    for path in sorted((ROOT / "ltx_dist").rglob("*.py")):
        for text in texts(path):
            assert not pattern.search(text) or any(place in text for place in elsewhere), f"{path}: {text!r}"


@pytest.mark.slow
def test_a_wheel_plans_renders_and_checks_a_machine() -> None:
    done = subprocess.run([sys.executable, TOOL], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "the wheel works" in done.stdout, done.stdout + done.stderr
