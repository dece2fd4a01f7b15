"""Prompt files (txt, csv, jsonl, yaml) -> RenderRequests. Everything wrong is said at once, each with its line."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import sys
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from ltx_dist.checkpoint import Checkpoint
from ltx_dist.config import (
    DefaultsConfig,
    StrictLoader,
    decode_text,
    did_you_mean,
    explain,
    printable,
    read_text,
    show,
    yaml_errors,
)
from ltx_dist.presets import Preset
from ltx_dist.types import RenderRequest

MAX_FILE_BYTES = 64 << 20
MAX_ROWS = 100_000
MAX_PROMPT_BYTES = 8 << 10
MAX_PROBLEMS_SHOWN = 50

_MAX_SEED = 2**63 - 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_OWN_FILES = ("run", "index", "trace")  # run.json, index.html and trace.json lie beside the clips
_WINDOWS_NAMES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


@dataclass(frozen=True, slots=True)
class _Grid:
    """The sizes a checkpoint can make: sides in multiples of `side`, frames in multiples of `frames` plus 1."""

    side: int
    frames: int

    @staticmethod
    def of(checkpoint: Checkpoint) -> _Grid:
        # diffusers' pipelines ask for multiples of 32 whatever the VAE; the latents for multiples of its ratio.
        return _Grid(math.lcm(32, checkpoint.spatial_compression_ratio), checkpoint.temporal_compression_ratio)


class _Settings(BaseModel):
    """What row, config and preset may say of a clip. The validation context is the checkpoint's _Grid."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    negative_prompt: str | None = None
    # x264 encodes up to 16384 pixels a side; an hour of frames is far beyond what any LTX-Video was trained for.
    height: int | None = Field(None, ge=1, le=16384)
    width: int | None = Field(None, ge=1, le=16384)
    num_frames: int | None = Field(None, ge=1, le=100_000)
    frame_rate: float | None = Field(None, gt=0, le=240)
    num_inference_steps: int | None = Field(None, ge=1, le=1000)
    guidance_scale: float | None = Field(None, ge=0)
    guidance_rescale: float | None = Field(None, ge=0, le=1)
    seed: int | None = Field(None, ge=0, le=_MAX_SEED)
    decode_timestep: float | None = Field(None, ge=0, le=1)
    decode_noise_scale: float | None = Field(None, ge=0, le=1)
    max_sequence_length: int | None = Field(None, ge=1, le=512)

    @field_validator("height", "width")
    @classmethod
    def _on_grid(cls, value: int, info: ValidationInfo) -> int:
        side = info.context.side
        if value % side:
            below = value - value % side
            raise ValueError(f"{value} is not a multiple of {side}; use {_either(below, below + side)}")
        return value

    @field_validator("num_frames")
    @classmethod
    def _whole_latent_frames(cls, value: int, info: ValidationInfo) -> int:
        frames = info.context.frames
        if (value - 1) % frames:
            below = value - (value - 1) % frames
            raise ValueError(f"{value} is not a multiple of {frames} plus 1; use {_either(below, below + frames)}")
        return value

    @field_validator("negative_prompt", "prompt", check_fields=False)
    @classmethod
    def _clean(cls, value: str) -> str:
        text = re.sub(r"\r\n|\n|\t", " ", value).strip()
        for character in text:
            if unicodedata.category(character) in ("Cc", "Cs"):
                raise ValueError(f"has the control character U+{ord(character):04X}; take it out")
        if (size := len(text.encode())) > MAX_PROMPT_BYTES:
            raise ValueError(f"is {size} bytes long; at most {MAX_PROMPT_BYTES} are allowed")
        return text


class _Row(_Settings):
    name: str | None = None
    prompt: str

    @field_validator("prompt")
    @classmethod
    def _not_empty(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("empty; write what the clip shows")
        return value

    @field_validator("name")
    @classmethod
    def _usable_as_file_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError(f"{show(value)}: use 1 to 100 of A-Z a-z 0-9 . _ - and begin with a letter or digit")
        if value.casefold() in _OWN_FILES:
            raise ValueError(f"{value!r} is the name of a file written beside the clips; choose another")
        if value.casefold().endswith((".mp4", ".json")):
            raise ValueError(f"{value!r}: leave the ending out; it is added")
        if value.endswith(".") or value.casefold().partition(".")[0] in _WINDOWS_NAMES:
            raise ValueError(f"{value!r} cannot be a file on Windows; choose another")
        return value


@dataclass(frozen=True, slots=True)
class _Item:
    """A row as read: its line in the file (from 1) and whatever stands there."""

    line: int
    content: Any


_Problem = tuple[int, str]
"""A line of the file and what is wrong there."""


def read_prompts(source: str, defaults: DefaultsConfig, preset: Preset, checkpoint: Checkpoint) -> list[RenderRequest]:
    """The requests of a prompt file (.txt, .csv, .jsonl, .yaml, .yml) or of standard input (`-`), in its order.

    A field's value is the row's, else that of `defaults`, else the preset's. Raises ValueError with a line for every
    error: `prompts.csv:7: height: 130 is not a multiple of 32; use 128 or 160`.
    """
    label, read, text = _open(source)
    problems: list[_Problem] = []
    items = read(text, label, problems)
    if len(items) > MAX_ROWS:
        raise ValueError(f"{label}: {len(items)} prompts; split the file, at most {MAX_ROWS} are allowed")
    if not items and not problems:
        raise ValueError(f"{label}: no prompts in it; write at least one")
    resolver = _Resolver(defaults, preset, _Grid.of(checkpoint))
    requests = [resolver.resolve(position, item) for position, item in enumerate(items)]
    by_line = sorted([*problems, *resolver.problems], key=lambda problem: problem[0])
    _raise_if_any([*resolver.fallback_problems, *(f"{label}:{line}: {message}" for line, message in by_line)])
    return [request for request in requests if request is not None]


def _raise_if_any(messages: list[str]) -> None:
    if len(messages) > MAX_PROBLEMS_SHOWN:
        messages = [*messages[:MAX_PROBLEMS_SHOWN], f"... and {len(messages) - MAX_PROBLEMS_SHOWN} more"]
    if messages:
        raise ValueError("\n".join(messages))


class _Resolver:
    """Turns items into requests one by one, and remembers what is wrong and which names are taken."""

    def __init__(self, defaults: DefaultsConfig, preset: Preset, grid: _Grid) -> None:
        self.problems: list[_Problem] = []
        self._grid = grid
        self._seed = defaults.seed
        self._line_of_name: dict[str, int] = {}
        own = {key: value for key, value in defaults.model_dump(exclude={"seed"}).items() if value is not None}
        rest = {key: getattr(preset, key) for key in DefaultsConfig.model_fields if key not in own and key != "seed"}
        self._fallback, wrong_own = _validate(_Settings, own, grid)
        fallback, wrong_rest = _validate(_Settings, rest, grid)
        self._fallback |= fallback | {key: None for key in rest if rest[key] is None}
        self._wrong = {key: f"defaults.{key}: {message}" for key, message in wrong_own.items()}
        self._wrong |= {
            key: f"preset {preset.version}: {key}: {message} in the prompt file or as defaults.{key}"
            for key, message in wrong_rest.items()
        }
        self._used_wrong: set[str] = set()

    @property
    def fallback_problems(self) -> list[str]:
        """What is wrong with values of config and preset that some row relies on, once and not for each row."""
        return [message for key, message in self._wrong.items() if key in self._used_wrong]

    def resolve(self, position: int, item: _Item) -> RenderRequest | None:
        """The request of an item, or None after noting why there is none."""
        content = {"prompt": item.content} if isinstance(item.content, str) else item.content
        if not isinstance(content, dict):
            self._note(item, f"{show(content)} is neither a prompt nor a mapping with one")
            return None
        # A null says not set, as an empty cell does. A key of half a surrogate pair could not even be printed.
        texts = {str(key).encode(errors="backslashreplace").decode(): value for key, value in content.items()}
        given = {key: value for key, value in texts.items() if value is not None or key not in _Row.model_fields}
        row, wrong = _validate(_Row, given, self._grid)
        for key, message in wrong.items():
            self._note(item, f"{printable(key)}: {message}")
        relied_on = self._wrong.keys() - given.keys()
        self._used_wrong |= relied_on
        if "prompt" in row and "name" not in wrong:
            row.setdefault("name", _default_name(position, row["prompt"]))
        self._claim(item, row.get("name"))
        seed = row.setdefault("seed", self._seed + position)
        if seed > _MAX_SEED:
            self._note(item, f"seed: defaults.seed plus the position is {seed}; at most {_MAX_SEED} is allowed")
        if wrong or relied_on:
            return None
        return RenderRequest(request_id=row.pop("name"), **{**self._fallback, **row})

    def _claim(self, item: _Item, name: str | None) -> None:
        key = name.casefold() if name else None
        if key in self._line_of_name:
            line = self._line_of_name[key]
            self._note(item, f"name: {name!r} is taken by line {line} (case does not count); choose another")
        elif key:
            self._line_of_name[key] = item.line

    def _note(self, item: _Item, message: str) -> None:
        self.problems.append((item.line, message))


def _validate(model: type[_Settings], given: Mapping[str, Any], grid: _Grid) -> tuple[dict[str, Any], dict[str, str]]:
    """The values that are right, converted, and for each key that is wrong what is wrong with it."""
    try:
        return model.model_validate(given, context=grid).model_dump(exclude_unset=True), {}
    except ValidationError as error:
        wrong = {}
        for details in error.errors():
            key = str(details["loc"][0])
            wrong[key] = explain(details, model.model_fields.get(key), model.model_fields, key)
        return {key: value for key, value in given.items() if key not in wrong}, wrong


def _either(below: int, above: int) -> str:
    return f"{below} or {above}" if below >= 1 else str(above)


def _default_name(position: int, prompt: str) -> str:
    """`001-a-red-circle`: the position counted from 1 and what is plain ASCII of the prompt's first words."""
    ascii_only = unicodedata.normalize("NFKD", prompt[:400]).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_only).strip("-")[:40].rstrip("-")
    return f"{position + 1:03d}-{slug}".rstrip("-")


_Reader = Callable[[str, str, list[_Problem]], list[_Item]]


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


def _read_txt(text: str, label: str, problems: list[_Problem]) -> list[_Item]:
    # Not splitlines(): it also splits at characters that are part of a prompt, and the line numbers would be off.
    lines = [line.strip() for line in text.split("\n")]
    return [_Item(number, line) for number, line in enumerate(lines, 1) if line and not line.startswith("#")]


def _read_jsonl(text: str, label: str, problems: list[_Problem]) -> list[_Item]:
    items: list[_Item] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            content = json.loads(line, object_pairs_hook=_unique_keys)
        except json.JSONDecodeError as error:
            problems.append((number, f"not JSON: {error.msg} at column {error.colno}; write one object a line"))
        except (ValueError, RecursionError) as error:
            problems.append((number, f"not usable JSON: {error}"))
        else:
            if isinstance(content, dict):
                items.append(_Item(number, content))
            else:
                problems.append((number, f"{show(content)} is not an object; write one object a line"))
    return items


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        raise ValueError("a key is given twice")
    return mapping


def _read_csv(text: str, label: str, problems: list[_Problem]) -> list[_Item]:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    items: list[_Item] = []
    line = 1
    try:
        for row in rows:
            if header is None and any(row):
                header = _csv_header(row, label, line)
            elif header is not None and any(row):
                if len(row) > len(header):
                    problems.append((line, f"{len(row)} cells under {len(header)} columns; quote text with a comma"))
                items.append(_Item(line, _csv_row(header, row)))
            line = rows.line_num + 1  # a quoted cell may span lines: an item's line is where it begins
    except csv.Error as error:
        problems.append((line, f"not CSV: {error}"))
    return items


def _csv_header(row: list[str], label: str, line: int) -> list[str]:
    header = [column.strip() for column in row]
    known = list(_Row.model_fields)
    wrong = [
        f"{label}:{line}: {printable(column)}: unknown column{did_you_mean(column, known)}"
        for column in header
        if column not in known
    ]
    wrong += [f"{label}:{line}: {column}: column given twice" for column in known if header.count(column) > 1]
    if "prompt" not in header:
        wrong.append(f"{label}:{line}: no column `prompt`; the first row names the columns, separated by commas")
    _raise_if_any(wrong)
    return header


def _csv_row(header: list[str], row: list[str]) -> dict[str, Any]:
    cells = {column: cell for column, cell in zip(header, row, strict=False) if cell.strip()}
    return {"prompt": "", **{column: _csv_value(column, cell) for column, cell in cells.items()}}


def _csv_value(column: str, cell: str) -> Any:
    """A cell as a number where its field is one and the text is; other text is left to fail the field's own check."""
    kind, text = _KINDS.get(column, "str"), cell.strip()
    if kind.startswith("int") and re.fullmatch(r"[+-]?[0-9]{1,400}", text):
        return int(text)
    if kind.startswith("float") and re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text):
        return float(text)
    return text if column == "name" else cell


_KINDS = {field.name: str(field.type) for field in fields(RenderRequest)}


def _read_yaml(text: str, label: str, problems: list[_Problem]) -> list[_Item]:
    """A list of texts or mappings, or a mapping whose key `prompts` holds one."""
    with yaml_errors(label, text):
        loader = StrictLoader(text)
        node = loader.get_single_node()
        if isinstance(node, yaml.MappingNode):
            node = _under_prompts(node, label)
        if node is None:
            return []
        if not isinstance(node, yaml.SequenceNode):
            raise ValueError(f"{label}:{node.start_mark.line + 1}: write a list of prompts, each on a line with `- `")
        return [_Item(item.start_mark.line + 1, loader.construct_object(item, deep=True)) for item in node.value]


def _under_prompts(node: yaml.MappingNode, label: str) -> yaml.Node | None:
    wrong = [key for key, _ in node.value if key.value != "prompts"]
    remedy = "unknown key; write a list of prompts, or one under the key `prompts`"
    _raise_if_any([f"{label}:{key.start_mark.line + 1}: {show(key.value)}: {remedy}" for key in wrong])
    return node.value[0][1] if node.value else None


_READERS: dict[str, _Reader] = {
    ".txt": _read_txt,
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".yaml": _read_yaml,
    ".yml": _read_yaml,
}
