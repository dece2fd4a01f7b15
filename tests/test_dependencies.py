"""The package imports exactly what pyproject.toml declares."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]

DISTRIBUTIONS = {"PIL": "pillow", "yaml": "pyyaml", "grpc": "grpcio", "pydantic_core": "pydantic"}
"""Distributions whose modules have another name. pydantic_core comes with pydantic, in one exact version."""

NOT_IMPORTED = {
    "accelerate": "diffusers and transformers load with it",
    "peft": "diffusers adds LoRAs with it",
    "protobuf": "transformers reads T5's tokenizer with it",
}

EXTRAS = {"torchao": "quantize", "pyarrow": "data", "pandas": "data"}
"""Imported only where it is needed."""


def imported() -> set[str]:
    """The distributions that the package imports anywhere."""
    modules: set[str] = set()
    for path in (ROOT / "ltx_dist").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.split(".")[0])
    others = modules - set(sys.stdlib_module_names) - {"ltx_dist"}
    return {DISTRIBUTIONS.get(module, module.lower()) for module in others}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=]", requirement)[0].lower() for requirement in requirements}


def test_imports_are_declared_and_declared_packages_are_used() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert imported() - EXTRAS.keys() == names(project["dependencies"]) - NOT_IMPORTED.keys()
    assert NOT_IMPORTED.keys() <= names(project["dependencies"])
    for name, extra in EXTRAS.items():
        assert name in names(project["optional-dependencies"][extra])
