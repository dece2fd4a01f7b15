"""Writes the tables of docs/prompts.md from the models that read prompt files and configs, so that they cannot differ.

.venv/bin/python tools/make_reference.py
"""

from __future__ import annotations

import re
import types
import typing
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ltx_dist.inputs.config import DefaultsConfig, RenderConfig
from ltx_dist.inputs.media_rows import SecondPassRow
from ltx_dist.inputs.prompt_row import Row

PAGE = Path(__file__).parents[1] / "docs" / "prompts.md"

FIRST = ("prompt", "name", "seed")
"""Of a row's fields, the ones that most files have."""

NAMES = {
    str: "text", int: "whole number", float: "number", bool: "`true`, `false`", tuple: "list of numbers", list: "list",
    SecondPassRow: "mapping",
}  # fmt: skip


def main() -> None:
    PAGE.write_text(filled(PAGE.read_text("utf-8")), "utf-8")


def filled(page: str) -> str:
    """The page with each part between `<!-- generated: NAME -->` and `<!-- /generated -->` written anew."""
    tables = {"fields": fields_table(), "config": config_table()}
    marked = r"(<!-- generated: (\w+) -->\n).*?(<!-- /generated -->)"
    return re.sub(marked, lambda found: f"{found[1]}{tables[found[2]]}{found[3]}", page, flags=re.DOTALL)


def fields_table() -> str:
    ordered = [*FIRST, *(name for name in Row.model_fields if name not in FIRST)]
    rows = [
        (f"`{name}`", _description(field), _allowed(field)) for name in ordered if (field := Row.model_fields[name])
    ]
    return _table(("field", "meaning", "allowed"), rows)


def config_table() -> str:
    rows: list[tuple[str, ...]] = []
    for section, field in RenderConfig.model_fields.items():
        model = field.annotation
        assert isinstance(model, type) and issubclass(model, BaseModel), section
        if model is DefaultsConfig:
            rows.append(
                (f"`{section}.*`", "Any field above but `prompt` and `name`, for rows that do not set it.", "", "")
            )
            continue
        for name, key in model.model_fields.items():
            rows.append((f"`{section}.{name}`", _description(key), _allowed(key), _default(key)))
    return _table(("key", "meaning", "allowed", "default"), rows)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _description(field: FieldInfo) -> str:
    assert field.description, f"{field} has no description"
    return field.description


def _allowed(field: FieldInfo) -> str:
    """`1 to 4096`, `above 0`, or the words it may be."""
    limits: dict[str, Any] = {}
    for part in field.metadata:
        limits |= {key: getattr(part, key) for key in ("ge", "gt", "le", "lt") if getattr(part, key, None) is not None}
    kinds = _kinds(field.annotation)
    words = [f"`{word}`" for kind in kinds for word in typing.get_args(kind) if typing.get_origin(kind) is Literal]
    others = [typing.get_origin(kind) or kind for kind in kinds if typing.get_origin(kind) is not Literal]
    return ", ".join(words + [NAMES[kind] + _limits(limits) for kind in others])


def _kinds(annotation: Any) -> list[Any]:
    """The parts of a union, flat and without None."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return [kind for part in typing.get_args(annotation) for kind in _kinds(part)]
    if typing.get_origin(annotation) is Literal:
        return [Literal[tuple(_words(annotation))]]
    return [] if annotation is types.NoneType else [annotation]


def _words(annotation: Any) -> list[Any]:
    return [
        word for part in typing.get_args(annotation) for word in (_words(part) if typing.get_args(part) else [part])
    ]


def _limits(limits: dict[str, Any]) -> str:
    shown = {
        key: "2^63" if value == 2**63 else "2^63 - 1" if value == 2**63 - 1 else f"{value:,}"
        for key, value in limits.items()
    }
    low = f", {shown['ge']} or more" if "ge" in shown else f" above {shown['gt']}" if "gt" in shown else ""
    if "ge" in shown and "le" in shown:
        return f", {shown['ge']} to {shown['le']}"
    high = f", at most {shown['le']}" if "le" in shown else f", below {shown['lt']}" if "lt" in shown else ""
    return low + high


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    return (
        "not set"
        if field.default is None
        else f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"
    )


if __name__ == "__main__":
    main()
