"""The tables of docs/prompts.md say what the models say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_reference_is_current() -> None:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "tools" / "make_reference.py")
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    page = (ROOT / "docs" / "prompts.md").read_text("utf-8")
    assert tool.filled(page) == page, "run: .venv/bin/python tools/make_reference.py"
    assert page.count("<!-- generated: ") == 3
    for key in ("`placement.layout`", "`recovery.spool_gb`", "`num_inference_steps`"):
        assert page.count(f"| {key} |") == 1, key
