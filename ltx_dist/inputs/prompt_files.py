"""Prompt files (txt, csv, jsonl, json, yaml) -> rows with line numbers. The content of rows is not checked here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ltx_dist.inputs.csv_files import read_csv
from ltx_dist.inputs.json_files import read_json_list, read_jsonl
from ltx_dist.inputs.plain_text import foreign_lines, json_kind
from ltx_dist.inputs.rows import MAX_ROWS, Doubt, Found, Item, Problem
from ltx_dist.inputs.yaml_files import read_yaml
from ltx_dist.strict_files import decode_text, read_text, yaml_errors

MAX_FILE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class PromptFile:
    """label: how to name the file in messages."""

    label: str
    items: list[Item]
    problems: list[Problem]
    doubts: list[Doubt]


_Reader = Callable[[str], Iterator[Found]]


def read_prompt_file(source: str) -> PromptFile:
    """The rows of a file (.txt, .csv, .jsonl, .json, .yaml, .yml) or of standard input (`-`), and the lines that are
    none.

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
    problems = [entry for entry in found if isinstance(entry, Problem)]
    return PromptFile(label, items, problems, [entry for entry in found if isinstance(entry, Doubt)])


def _open(source: str) -> tuple[str, _Reader, str]:
    """How to name the source in messages, how to read it, and its text."""
    if source == "-":
        text = decode_text(sys.stdin.buffer.read(MAX_FILE_BYTES + 1), "<stdin>", MAX_FILE_BYTES)
        kind = json_kind(text)
        return "<stdin>", _READERS[kind] if kind else _read_txt, text
    path = Path(source)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{source}: unknown kind of prompt file; it must end in {', '.join(_READERS)} (or be -)")
    return source, reader, read_text(path, MAX_FILE_BYTES)


def _read_txt(text: str) -> Iterator[Found]:
    # Not splitlines(): it also splits at characters that are part of a prompt, and the line numbers would be off.
    stripped = ((number, line.strip()) for number, line in enumerate(text.split("\n"), 1))
    prompts = [(number, line) for number, line in stripped if line and not line.startswith("#")]
    if foreign := foreign_lines(prompts):
        yield from (Problem(number, message) for number, message in foreign)
    else:
        yield from (Item(number, line) for number, line in prompts)


_READERS: dict[str, _Reader] = {
    ".txt": _read_txt,
    ".csv": read_csv,
    ".jsonl": read_jsonl,
    ".json": read_json_list,
    ".yaml": read_yaml,
    ".yml": read_yaml,
}
