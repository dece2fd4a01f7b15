"""Prompts as CSV: the first row names the columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from ltx_dist.inputs.cells import cell
from ltx_dist.inputs.explain import did_you_mean
from ltx_dist.inputs.prompt_row import Row
from ltx_dist.inputs.rows import Item, Problem
from ltx_dist.inputs.vary import assignments
from ltx_dist.messages import printable


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
                for column, text in enumerate(cells[: len(header)], 1):
                    if not header[column - 1] and text.strip():
                        nameless.setdefault(column, line)
                yield Item(line, _content(header, cells))
            line = rows.line_num + 1  # a quoted cell may span lines: an item's line is where it begins
    except csv.Error as error:
        yield Problem(line, f"not CSV: {error}")
    for column in nameless:
        yield Problem(header_line, f"column {column} has no name; name it or take it out (pandas: index=False)")


def _trimmed(row: Sequence[str], width: int) -> list[str]:
    """Without the empty cells beyond the header's width, which spreadsheets add."""
    end = max((column for column, text in enumerate(row, 1) if text.strip()), default=0)
    return list(row[: max(width, end)])


def _content(header: Sequence[str], row: Sequence[str]) -> dict[str, Any]:
    known = {column: text for column, text in zip(header, row, strict=False) if column in Row.model_fields}
    return {"prompt": "", **{column: _value(column, text) for column, text in known.items() if text.strip()}}


def _value(column: str, text: str) -> Any:
    """A cell of `vary` may be as on the command line: `seed=0-4; guidance_scale=1,3`."""
    if column == "vary" and not text.lstrip().startswith("{"):
        try:
            return assignments(text.split(";"))
        except ValueError:
            return text
    return cell(column, text)


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
