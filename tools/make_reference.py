"""Writes the tables of docs/prompts.md from the code that reads prompt files and configs, so that they cannot differ.

.venv/bin/python tools/make_reference.py
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ltx_dist.inputs.preset import COLUMNS, preset_row
from ltx_dist.inputs.reference import config_entries, row_entries
from ltx_dist.models.family import FAMILIES

PAGE = Path(__file__).parents[1] / "docs" / "prompts.md"


def main() -> None:
    PAGE.write_text(filled(PAGE.read_text("utf-8")), "utf-8")


def filled(page: str) -> str:
    """The page, with each part between `<!-- generated: NAME -->` and `<!-- /generated -->` rewritten."""
    tables = {"fields": fields_table(), "config": config_table(), "presets": presets_table()}
    marked = r"(<!-- generated: (\w+) -->\n).*?(<!-- /generated -->)"
    return re.sub(marked, lambda found: f"{found[1]}{tables[found[2]]}{found[3]}", page, flags=re.DOTALL)


def fields_table() -> str:
    rows = ((f"`{entry.name}`", entry.meaning, entry.allowed) for entry in row_entries())
    return _table(("field", "meaning", "allowed"), rows)


def config_table() -> str:
    rows: list[tuple[str, ...]] = []
    for section, entries in config_entries().items():
        if section == "defaults":
            names = ", ".join(f"`{entry.name}`" for entry in entries)
            rows.append(("`defaults.*`", f"For rows that do not set it: {names}.", "", ""))
            continue
        rows += [(f"`{section}.{one.name}`", one.meaning, one.allowed, _default(one.default)) for one in entries]
    return _table(("key", "meaning", "allowed", "default"), rows)


def presets_table() -> str:
    presets = [preset for family in FAMILIES for preset in family.presets.values()]
    return _table(COLUMNS, ((f"`{version}`", *cells) for version, *cells in map(preset_row, presets)))


def _table(head: tuple[str, ...], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _default(value: Any) -> str:
    return "not set" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    main()
