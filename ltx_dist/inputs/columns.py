"""Names of columns and keys: which are fields, which are kept for the sidecar, and which are mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ltx_dist.inputs.explain import did_you_mean
from ltx_dist.inputs.prompt_row import Row
from ltx_dist.messages import printable

META = "meta."
"""Prefix of the names of columns that are kept for the sidecar."""


@dataclass(frozen=True, slots=True)
class Columns:
    """How columns are read. renamed: fields by column name. kept: columns copied into the sidecar under `meta`."""

    renamed: Mapping[str, str] = field(default_factory=dict[str, str])
    kept: frozenset[str] = frozenset()

    def field_of(self, column: str) -> str:
        """The field that a column holds, or `meta.NAME`; for an unknown column, its own name."""
        name = self.renamed.get(column, column)
        return f"{META}{name}" if name in self.kept else name

    def is_known(self, column: str) -> bool:
        """Whether it holds a field or is kept."""
        name = self.field_of(column)
        return name in Row.model_fields or (name.startswith(META) and name != META)

    def header_problems(self, header: Sequence[str]) -> list[str]:
        """Errors in the names of a table's columns; those without a name are checked elsewhere."""
        fields = [self.field_of(column) for column in header if column]
        known = list(Row.model_fields)
        wrong = [
            f"{printable(column)}: unknown column{did_you_mean(column, known)}"
            for column in header
            if column and not self.is_known(column)
        ]
        wrong += [f"{name}: column given twice" for name in dict.fromkeys(fields) if fields.count(name) > 1]
        wrong += self.missing(header)
        if "prompt" not in fields:
            wrong.append("no column `prompt`; the first row names the columns, and --column NAME=prompt renames one")
        return wrong

    def missing(self, seen: Sequence[str] | set[str]) -> list[str]:
        """One error for each column to be renamed or kept that is not among those `seen`."""
        asked = [("prompts.columns", name) for name in self.renamed]
        asked += [("prompts.keep_columns", name) for name in sorted(self.kept - set(self.renamed.values()))]
        there = ", ".join(map(printable, list(seen)[:20])) or "none"
        return [f"{key}: no column {name!r}; there are {there}" for key, name in asked if name not in seen]

    def arranged(self, row: Mapping[Any, Any]) -> tuple[dict[Any, Any], list[str]]:
        """A row by fields, with kept values under `meta`, and the errors in the names of its keys."""
        found: dict[Any, Any] = {}
        meta: dict[str, Any] = {}
        problems: list[str] = []
        for key, value in row.items():
            name = self.field_of(key) if isinstance(key, str) else key
            kept = isinstance(name, str) and name.startswith(META) and name != META
            target, name = (meta, name.removeprefix(META)) if kept else (found, name)
            if name in target:
                problems.append(f"{printable(str(name))}: given twice, as {printable(str(key))}, too; leave one out")
            target[name] = value
        if meta:
            own = found.get("meta")
            if own is None or isinstance(own, dict):
                found["meta"] = {**(own or {}), **{name: value for name, value in meta.items() if value is not None}}
        return found, problems
