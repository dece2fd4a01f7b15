"""Reads prompts from files of several formats, at a path or URL, or given directly: rows with line numbers.

The content of rows is not checked here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ltx_dist.inputs.columns import Columns
from ltx_dist.inputs.csv_files import read_csv
from ltx_dist.inputs.json_files import read_json_list, read_jsonl
from ltx_dist.inputs.parquet_files import read_parquet
from ltx_dist.inputs.plain_text import foreign_lines, json_kind
from ltx_dist.inputs.prompt_sources import MAX_FILE_BYTES, folder_of, label_of, read_bytes, suffix_of
from ltx_dist.inputs.reading_config import PromptsConfig
from ltx_dist.inputs.rows import MAX_ROWS, Doubt, Found, Item, Problem
from ltx_dist.inputs.wan2gp import from_wan2gp
from ltx_dist.inputs.yaml_files import read_yaml
from ltx_dist.strict_files import decode_text, yaml_errors

Prompts = str | Sequence[Any]
"""A path, a URL, `-` for standard input; or strings and mappings, which are rows 1, 2, ..."""


@dataclass(frozen=True, slots=True)
class PromptFile:
    """A prompt file as read. label: its name in messages. folder: path or URL that paths in it are relative to."""

    label: str
    folder: Path | str
    items: list[Item]
    problems: list[Problem]
    doubts: list[Doubt]


_Reader = Callable[[str], Iterator[Found]]


def read_prompt_file(source: Prompts, reading: PromptsConfig, content: bytes | None = None) -> PromptFile:
    """The rows of a source, with their values by field, and errors for the lines that are not rows.

    content: of the path, URL or standard input, if it has been read already. Raises ValueError for a file that cannot
    be read at all, or has no rows or too many.
    """
    columns = Columns(reading.columns, frozenset(reading.keep_columns))
    if isinstance(source, str):
        label, folder = label_of(source), folder_of(source)
        found = _read(source, label, columns, content)
    else:
        label, folder = "prompts", Path()
        found = [Item(number, row) for number, row in enumerate(source, 1)]
    items = [entry for entry in found if isinstance(entry, Item)]
    if len(items) > MAX_ROWS:
        raise ValueError(f"{label}: {len(items)} prompts; split the file, at most {MAX_ROWS} are allowed")
    if not found:
        raise ValueError(f"{label}: no prompts in it; write at least one")
    problems = [entry for entry in found if isinstance(entry, Problem)]
    if not problems and not (isinstance(source, str) and suffix_of(source) in _TABLES):
        problems += _missing(items, columns)
    items, misnamed = _arranged(items, columns)
    doubts = [entry for entry in found if isinstance(entry, Doubt)]
    return PromptFile(label, folder, items, problems + misnamed, doubts)


def _read(source: str, label: str, columns: Columns, content: bytes | None) -> list[Found]:
    suffix = suffix_of(source)
    if suffix == ".parquet":
        return list(read_parquet(source, columns, content))
    readers: dict[str, _Reader] = _TEXTS | {
        ".csv": partial(read_csv, columns=columns),
        ".tsv": partial(read_csv, columns=columns, delimiters="\t"),
    }
    if source != "-" and suffix not in readers:
        raise ValueError(
            f"{label}: unknown kind of prompt file; it must end in {', '.join(sorted([*readers, '.parquet']))} (or be "
            "-); to give a prompt itself, use --prompt"
        )
    text = decode_text(read_bytes(source) if content is None else content, label, MAX_FILE_BYTES)
    reader = readers[(json_kind(text) or ".txt") if source == "-" else suffix]
    with yaml_errors(label, text):
        return list(reader(text))


def _missing(items: list[Item], columns: Columns) -> list[Problem]:
    """Errors for requested columns that no row has."""
    if not columns.renamed and not columns.kept:
        return []
    seen = dict.fromkeys(str(key) for item in items if isinstance(item.content, dict) for key in item.content)
    if not seen:
        asked = "--column (prompts.columns)" if columns.renamed else "--keep-columns (prompts.keep_columns)"
        remedy = "leave it out, or give a .csv or .jsonl file"
        return [Problem(1, f"{asked}: these prompts are plain texts, without columns or keys; {remedy}")]
    return [Problem(1, message) for message in columns.missing(list(seen))]


def _arranged(items: list[Item], columns: Columns) -> tuple[list[Item], list[Problem]]:
    arranged: list[Item] = []
    problems: list[Problem] = []
    for item in items:
        if isinstance(item.content, dict):
            content, wrong = columns.arranged(item.content)
            problems += (Problem(item.line, message) for message in wrong)
            item = replace(item, content=content)
        arranged.append(item)
    return arranged, problems


def _read_txt(text: str) -> Iterator[Found]:
    # Not splitlines(): it also splits at characters that may be part of a prompt, so line numbers would be wrong.
    stripped = ((number, line.strip()) for number, line in enumerate(text.split("\n"), 1))
    prompts = [(number, line) for number, line in stripped if line and not line.startswith("#")]
    if foreign := foreign_lines(prompts):
        yield from (Problem(number, message) for number, message in foreign)
    else:
        yield from (Item(number, line) for number, line in prompts)


_TEXTS: dict[str, _Reader] = {
    ".txt": _read_txt,
    ".jsonl": read_jsonl,
    ".json": lambda text: from_wan2gp(read_json_list(text)),
    ".yaml": read_yaml,
    ".yml": read_yaml,
}
_TABLES = (".csv", ".tsv", ".parquet")
"""Formats that name their columns once, and check those themselves."""
