"""Prompts as CSV: the first row names the columns."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from ltx_dist.inputs.explain import did_you_mean
from ltx_dist.inputs.prompt_row import Row
from ltx_dist.inputs.rows import Item, Problem
from ltx_dist.messages import printable

_NESTED = ("conditions", "second_pass", "loras")
"""Columns whose cells may be JSON."""


def read_csv(text: str) -> Iterator[Item | Problem]:
    """The rows below the header. Columns without a name are left out where all their cells are empty."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    nameless: dict[int, int] = {}
    line = 1
    header_line = 1
    try:
        for row in rows:
            if any(row) and not header:
                header, header_line = [column.strip() for column in row], line
                yield from (Problem(line, message) for message in _header_mistakes(header))
                if "prompt" not in header:
                    return  # every row would be wrong for this one reason
            elif any(row):
                cells = _trimmed(row, len(header))
                if len(cells) > len(header):
                    yield Problem(line, f"{len(cells)} cells under {len(header)} columns; quote text with a comma")
                for column, cell in enumerate(cells[: len(header)], 1):
                    if not header[column - 1] and cell.strip():
                        nameless.setdefault(column, line)
                yield Item(line, _content(header, cells))
            line = rows.line_num + 1  # a quoted cell may span lines: an item's line is where it begins
    except csv.Error as error:
        yield Problem(line, f"not CSV: {error}")
    for column in nameless:
        yield Problem(header_line, f"column {column} has no name; name it or take it out (pandas: index=False)")


def _trimmed(row: Sequence[str], width: int) -> list[str]:
    """Without the empty cells beyond the header's width, which spreadsheets add."""
    end = max((column for column, cell in enumerate(row, 1) if cell.strip()), default=0)
    return list(row[: max(width, end)])


def _content(header: Sequence[str], row: Sequence[str]) -> dict[str, Any]:
    known = {column: cell for column, cell in zip(header, row, strict=False) if column in Row.model_fields}
    cells = {column: cell for column, cell in known.items() if cell.strip()}
    return {"prompt": "", **{column: _cell(column, cell) for column, cell in cells.items()}}


def _header_mistakes(header: list[str]) -> list[str]:
    known = list(Row.model_fields)
    unknown = [column for column in header if column not in known and column]
    wrong = [f"{printable(column)}: unknown column{did_you_mean(column, known)}" for column in unknown]
    wrong += [f"{column}: column given twice" for column in known if header.count(column) > 1]
    if "prompt" not in header:
        wrong.append(
            "no column `prompt`; the first row names the columns, separated by commas (not semicolons or tabs)"
        )
    return wrong


def _cell(column: str, text: str) -> Any:
    """A cell as a number where its field is one and the text is; other text is left to fail the field's own check."""
    kinds, stripped = get_args(Row.model_fields[column].annotation), text.strip()
    if int in kinds and re.fullmatch(r"[+-]?[0-9]{1,400}", stripped):
        return int(stripped)
    if float in kinds and re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", stripped):
        return float(stripped)
    if bool in kinds and stripped in ("true", "false"):
        return stripped == "true"
    if column in _NESTED and stripped.startswith(("[", "{")):
        try:
            return json.loads(stripped)
        except (ValueError, RecursionError):
            return text
    return stripped if column == "name" else text
