"""Prompts as CSV or TSV: the first row names the columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from ltx_dist.inputs.cells import cell
from ltx_dist.inputs.columns import Columns
from ltx_dist.inputs.prompt_row import Row
from ltx_dist.inputs.rows import Item, Problem
from ltx_dist.inputs.vary import VARY_FORM, assignments


def read_csv(text: str, columns: Columns, delimiters: str = ",;\t") -> Iterator[Item | Problem]:
    """The rows below the header. A column without a name is left out if all its cells are empty.

    delimiters: possible separators; the first with which the header has a column of prompts is used. Spreadsheets
    write semicolons in countries where the comma is the decimal point.
    """
    delimiter = next((one for one in delimiters if _has_prompts(text, one, columns)), delimiters[0])
    rows = _rows(text, delimiter)
    named = {",": "a comma", ";": "a semicolon", "\t": "a tab"}[delimiter]
    header: list[str] = []
    nameless: dict[int, int] = {}
    line = 1
    header_line = 1
    try:
        for row in rows:
            if any(row) and not header:
                header, header_line = [column.strip() for column in row], line
                yield from (Problem(line, message) for message in columns.header_problems(header))
                if "prompt" not in map(columns.field_of, header):
                    return  # otherwise every row would repeat this error
            elif any(row):
                cells = _trimmed(row, len(header))
                if len(cells) > len(header):
                    yield Problem(line, f"{len(cells)} cells under {len(header)} columns; quote text with {named}")
                for column, text in enumerate(cells[: len(header)], 1):
                    if not header[column - 1] and text.strip():
                        nameless.setdefault(column, line)
                yield Item(line, _content(header, cells, columns))
            line = rows.line_num + 1  # a quoted cell may span lines; an item's line is the one where it begins
    except csv.Error as error:
        yield Problem(line, f"not CSV: {error}")
    for column in nameless:
        yield Problem(header_line, f"column {column} has no name; name it or remove it (pandas: index=False)")


def _rows(text: str, delimiter: str) -> Any:
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)


def _has_prompts(text: str, delimiter: str, columns: Columns) -> bool:
    """Whether, with this delimiter, the first row names a column of prompts."""
    try:
        header = next((row for row in _rows(text, delimiter) if any(row)), [])
    except csv.Error:
        return False
    return "prompt" in (columns.field_of(column.strip()) for column in header)


def _trimmed(row: Sequence[str], width: int) -> list[str]:
    """The row without the empty cells beyond the header's width, which spreadsheets add."""
    end = max((column for column, text in enumerate(row, 1) if text.strip()), default=0)
    return list(row[: max(width, end)])


def _content(header: Sequence[str], row: Sequence[str], columns: Columns) -> dict[str, Any]:
    """Values by column. An empty cell is left out, except the prompt, which must have a value."""
    found: dict[str, Any] = {}
    for column, text in zip(header, row, strict=False):
        field = columns.field_of(column)
        if columns.is_known(column) and (text.strip() or field == "prompt"):
            found[column] = _value(field, text) if field in Row.model_fields else text
    return found


def _value(field: str, text: str) -> Any:
    """The value of a cell. A cell of `vary` may be written as on the command line: `seed=0-4; guidance_scale=1,3`."""
    if field == "vary" and not text.lstrip().startswith("{"):
        try:
            return assignments(text.split(";"), VARY_FORM)
        except ValueError:
            return text
    return cell(field, text)
