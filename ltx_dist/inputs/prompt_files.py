"""Prompt files (txt, csv, jsonl, yaml) -> rows with their lines. What the rows say is not looked at here."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml

from ltx_dist.inputs.prompt_row import Row
from ltx_dist.messages import did_you_mean, printable, show
from ltx_dist.strict_files import StrictLoader, decode_text, read_text, yaml_errors

MAX_FILE_BYTES = 64 << 20
MAX_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class Item:
    """A row as read: its line in the file (from 1) and whatever stands there."""

    line: int
    content: Any


@dataclass(frozen=True, slots=True)
class Problem:
    """A line of the file (from 1) and what is wrong there."""

    line: int
    message: str


@dataclass(frozen=True, slots=True)
class PromptFile:
    """label: how to name the file in messages."""

    label: str
    items: list[Item]
    problems: list[Problem]


_Reader = Callable[[str], Iterator[Item | Problem]]


def read_prompt_file(source: str) -> PromptFile:
    """The rows of a file (.txt, .csv, .jsonl, .yaml, .yml) or of standard input (`-`), and the lines that are none.

    Raises ValueError for a file that cannot be read at all, has no rows or too many.
    """
    label, reader, text = _open(source)
    with yaml_errors(label, text):
        found = list(reader(text))
    items = [entry for entry in found if isinstance(entry, Item)]
    if len(items) > MAX_ROWS:
        raise ValueError(f"{label}: {len(items)} prompts; split the file, at most {MAX_ROWS} are allowed")
    if not found:
        raise ValueError(f"{label}: no prompts in it; write at least one")
    return PromptFile(label, items, [entry for entry in found if isinstance(entry, Problem)])


def _open(source: str) -> tuple[str, _Reader, str]:
    """How to name the source in messages, how to read it, and its text."""
    if source == "-":
        text = decode_text(sys.stdin.buffer.read(MAX_FILE_BYTES + 1), "<stdin>", MAX_FILE_BYTES)
        return "<stdin>", _read_jsonl if text.lstrip().startswith("{") else _read_txt, text
    path = Path(source)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{source}: unknown kind of prompt file; it must end in {', '.join(_READERS)} (or be -)")
    return source, reader, read_text(path, MAX_FILE_BYTES)


def _read_txt(text: str) -> Iterator[Item]:
    # Not splitlines(): it also splits at characters that are part of a prompt, and the line numbers would be off.
    for number, line in enumerate(text.split("\n"), 1):
        prompt = line.strip()
        if prompt and not prompt.startswith("#"):
            yield Item(number, prompt)


def _read_jsonl(text: str) -> Iterator[Item | Problem]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            content = json.loads(line, object_pairs_hook=_unique_keys)
        except json.JSONDecodeError as error:
            yield Problem(number, f"not JSON: {error.msg} at column {error.colno}; write one object a line")
        except (ValueError, RecursionError) as error:
            yield Problem(number, f"not usable JSON: {error}")
        else:
            if isinstance(content, dict):
                yield Item(number, content)
            else:
                yield Problem(number, f"{show(content)} is not an object; write one object a line")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        raise ValueError("a key is given twice")
    return mapping


def _read_csv(text: str) -> Iterator[Item | Problem]:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    line = 1
    try:
        for row in rows:
            if any(row) and not header:
                header = [column.strip() for column in row]
                yield from (Problem(line, message) for message in _header_mistakes(header))
                if "prompt" not in header:
                    return  # every row would be wrong for this one reason
            elif any(row):
                if len(row) > len(header):
                    yield Problem(line, f"{len(row)} cells under {len(header)} columns; quote text with a comma")
                known = {column: cell for column, cell in zip(header, row, strict=False) if column in Row.model_fields}
                cells = {column: cell for column, cell in known.items() if cell.strip()}
                yield Item(line, {"prompt": "", **{column: _cell(column, cell) for column, cell in cells.items()}})
            line = rows.line_num + 1  # a quoted cell may span lines: an item's line is where it begins
    except csv.Error as error:
        yield Problem(line, f"not CSV: {error}")


def _header_mistakes(header: list[str]) -> list[str]:
    known = list(Row.model_fields)
    unknown = [column for column in header if column not in known]
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
    return stripped if column == "name" else text


def _read_yaml(text: str) -> Iterator[Item | Problem]:
    """A list of texts or mappings, or a mapping whose key `prompts` holds one."""
    loader = StrictLoader(text)
    node = loader.get_single_node()
    if isinstance(node, yaml.MappingNode):
        wrong = [key for key, _ in node.value if key.value != "prompts"]
        if wrong:
            remedy = "unknown key; write a list of prompts, or one under the key `prompts`"
            yield from (Problem(key.start_mark.line + 1, f"{show(key.value)}: {remedy}") for key in wrong)
            return
        node = node.value[0][1] if node.value else None
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield Item(item.start_mark.line + 1, loader.construct_object(item, deep=True))
    elif node is not None:
        yield Problem(node.start_mark.line + 1, "write a list of prompts, each on a line with `- `")


_READERS: dict[str, _Reader] = {
    ".txt": _read_txt,
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".yaml": _read_yaml,
    ".yml": _read_yaml,
}
