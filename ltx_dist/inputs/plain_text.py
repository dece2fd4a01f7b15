"""Prompts as plain text, one per line; detects lines that clearly belong to another format or program."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from ltx_dist.inputs.other_names import is_other_name
from ltx_dist.inputs.prompt_row import Row
from ltx_dist.messages import show

Line = tuple[int, str]
"""A line: its number, from 1, and its stripped text."""

_ROWS = "write rows with the fields prompt and negative_prompt, as .csv, .jsonl or .yaml"

_FOREIGN_LINES: Mapping[str, tuple[re.Pattern[str], str]] = {
    "begins a positive or a negative prompt of another program": (
        re.compile(r"(positive|negative)([ _]prompt)?s?\s*:", re.I), _ROWS,
    ),
    "is a key and a value": (re.compile(r"(prompts?|text|caption)\s*:(\s|$)", re.I), _ROWS),
    "is a list of settings": (
        re.compile(r"((steps|seed|cfg scale)\s*:\s*[\d.]+|size\s*:\s*\d+x\d+|sampler\s*:[^,]*)\s*(,|$)", re.I),
        _ROWS,
    ),
    "has no words": (re.compile(r"[-=_*~+#.`|:<>/\\]{3,}$"), "remove it; each line is a prompt"),
    "is a command of another program": (
        re.compile(r"!\s*\{|\[/\w+\s*=|--[A-Za-z][\w-]*([\s=]|$)"), f"remove it, or {_ROWS}",
    ),
    "is a row of a table": (re.compile(r"\|.*\|$"), _ROWS),
}  # fmt: skip
"""Kinds of lines that are no prompts: what such a line is, the pattern at its beginning, and the remedy."""

_FLAG = re.compile(r"\s--([A-Za-z][\w-]*)(?=[\s=]|$)")
_SHORT_FLAGS = frozenset({"ar", "no", "stylize", "chaos", "niji", "neg", "n", "s", "d", "g", "l"})
"""Flags of Midjourney and of Stable Diffusion's prompt files."""
_LIST_MARK = re.compile(r"([-*\u2022]|(\d{1,6})[.)])\s+")

_UNEXPANDED = (
    (re.compile(r"\{[^{}]*\|[^{}]*\}"), "a choice"),
    (re.compile(r"(?<!\w)__[A-Za-z0-9][\w/*.-]*?__(?!\w)"), "a wildcard"),
    (re.compile(r"<(lora|lyco|hypernet|embedding):[^<>]*>", re.I), "another program's tag"),
    (re.compile(r"\([^()]*:\s*\d+(\.\d+)?\)"), "a weight"),
)

EXPANDABLE = ("a choice", "a wildcard")
"""The kinds that `prompts.expand` replaces."""


def unexpanded(prompt: str) -> tuple[str, str] | None:
    """The first part of a prompt that other programs would replace, and their term for it; None if there is none."""
    found = [(match.start(), match[0], kind) for pattern, kind in _UNEXPANDED if (match := pattern.search(prompt))]
    return min(found)[1:] if found else None


def json_kind(text: str) -> str | None:
    """`.json` or `.jsonl`, whichever the text clearly is; None if it only begins with a bracket."""
    stripped = text.lstrip()
    if stripped[:1] not in ("{", "["):
        return None
    first = stripped.split("\n", 1)[0].strip()
    if first.startswith("{") and _is_json(first):
        return ".jsonl"
    if first in ("{", "[") or re.match(r"[\[{]\s*[\"{]", stripped):
        return ".jsonl" if re.match(r"\{.*\}$", first) else ".json"
    return ".json" if stripped.startswith("[") and _is_json(stripped) else None


def foreign_lines(lines: Sequence[Line]) -> list[tuple[int, str]]:
    """For each kind of line that is not a prompt, the number of the first such line and a message with the remedy.

    If the whole file has another format, only that is reported.
    """
    if whole := _whole_file(lines):
        return [(lines[0][0], whole)]
    found: dict[str, list[Line]] = {}
    remedies: dict[str, str] = {}
    for line in lines:
        for kind, (pattern, remedy) in _FOREIGN_LINES.items():
            if pattern.match(line[1]):
                found.setdefault(kind, []).append(line)
                remedies[kind] = remedy
                break
        else:
            if flag := _flag(line[1]):
                kind = "has a flag of another program"
                found.setdefault(kind, []).append((line[0], flag))
                remedies[kind] = f"remove it, or {_ROWS}"
    return [
        (same[0][0], f"{show(same[0][1])} {kind}{_and_more(len(same) - 1)}; {remedies[kind]}")
        for kind, same in found.items()
    ]


def _whole_file(lines: Sequence[Line]) -> str | None:
    if not lines:
        return None
    first = lines[0][1]
    if kind := json_kind("\n".join(text for _, text in lines)):
        return f"this is JSON; name the file {kind}"
    cells = [cell.strip().strip('"') for cell in re.split(r"[,;\t]", first)]
    if "prompt" in cells and (len(cells) > 1 or len(lines) > 1) and all(map(_is_field, cells)):
        return f"{show(first)} is the header of a table; name the file .csv, with commas between its columns"
    marks = [_LIST_MARK.match(text) for _, text in lines]
    if len(lines) > 1 and all(marks):
        numbers = [int(mark[2]) for mark in marks if mark and mark[2]]
        if not numbers or numbers == list(range(numbers[0], numbers[0] + len(lines))):
            return f"every line begins as {show(first[:2])} does, as in a list; remove these marks, or write .yaml"
    return None


def _flag(text: str) -> str | None:
    for match in _FLAG.finditer(text):
        name = match[1].replace("-", "_").lower()
        if name in Row.model_fields or is_other_name(name) or name in _SHORT_FLAGS:
            return match[0].strip()
    return None


def _is_field(cell: str) -> bool:
    return cell in Row.model_fields or is_other_name(cell) or not cell


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _and_more(number: int) -> str:
    return f", and {number} more" if number else ""
