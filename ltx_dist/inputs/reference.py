"""Describes the fields of rows and configs from their models, for the docs, `ltx-dist fields` and `ltx-dist config`."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ltx_dist.inputs.config import DefaultsConfig, RenderConfig
from ltx_dist.inputs.media_rows import SecondPassRow, WindowsRow
from ltx_dist.inputs.prompt_row import Row

FIRST = ("prompt", "name", "seed")
"""The fields of a row that most files have."""

NAMES = {
    str: "text", int: "whole number", float: "number", bool: "`true`, `false`", tuple: "list of numbers", list: "list",
    dict: "mapping", SecondPassRow: "mapping", WindowsRow: "mapping",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """One field of a row, or one key of the config. Texts are Markdown. default: a key's; None for a field."""

    name: str
    meaning: str
    allowed: str
    default: Any = None


def row_entries() -> list[Entry]:
    """The fields of a row; those that most files have come first."""
    ordered = [*FIRST, *(name for name in Row.model_fields if name not in FIRST)]
    return [_entry(name, Row.model_fields[name]) for name in ordered]


def config_entries() -> dict[str, list[Entry]]:
    """The keys of the config by section; those of `defaults` mean what the row's fields mean."""
    return {section: list(_keys_of(section)) for section in RenderConfig.model_fields}


def _keys_of(section: str) -> typing.Iterator[Entry]:
    model = RenderConfig.model_fields[section].annotation
    assert isinstance(model, type) and issubclass(model, BaseModel), section
    for name, field in model.model_fields.items():
        as_in_rows = model is DefaultsConfig and name != "seed"
        yield _entry(name, Row.model_fields[name] if as_in_rows else field)


def _entry(name: str, field: FieldInfo) -> Entry:
    assert field.description, f"{name} has no description"
    return Entry(name, field.description, _allowed(field), field.default)


def _allowed(field: FieldInfo) -> str:
    """The allowed values: `whole number, 1 to 4,096`, or the possible words."""
    limits: dict[str, Any] = {}
    for part in field.metadata:
        limits |= {key: getattr(part, key) for key in ("ge", "gt", "le", "lt") if getattr(part, key, None) is not None}
    kinds = _kinds(field.annotation)
    words = [f"`{word}`" for kind in kinds for word in typing.get_args(kind) if typing.get_origin(kind) is Literal]
    others = [typing.get_origin(kind) or kind for kind in kinds if typing.get_origin(kind) is not Literal]
    return ", ".join(words + [NAMES[kind] + _limits(limits) for kind in others])


def _kinds(annotation: Any) -> list[Any]:
    """The parts of a union, flat and without None."""
    if isinstance(annotation, UnionType) or typing.get_origin(annotation) is typing.Union:
        return [kind for part in typing.get_args(annotation) for kind in _kinds(part)]
    if typing.get_origin(annotation) is Literal:
        return [Literal[tuple(_words(annotation))]]
    return [] if annotation is NoneType else [annotation]


def _words(annotation: Any) -> list[Any]:
    return [
        word for part in typing.get_args(annotation) for word in (_words(part) if typing.get_args(part) else [part])
    ]


def _limits(limits: dict[str, Any]) -> str:
    shown = {key: "2^63 - 1" if value == 2**63 - 1 else f"{value:,}" for key, value in limits.items()}
    low = f", {shown['ge']} or more" if "ge" in shown else f" above {shown['gt']}" if "gt" in shown else ""
    if "ge" in shown and "le" in shown:
        return f", {shown['ge']} to {shown['le']}"
    high = f", at most {shown['le']}" if "le" in shown else f", below {shown['lt']}" if "lt" in shown else ""
    return low + high
