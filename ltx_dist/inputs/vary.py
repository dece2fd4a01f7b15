"""`vary`: settings that take several values each. Every value has a label, from which the names of clips are made."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import yaml

from ltx_dist.inputs.cells import cell, kinds_of
from ltx_dist.inputs.explain import did_you_mean
from ltx_dist.inputs.prompt_row import Row
from ltx_dist.inputs.rows import MAX_ROWS
from ltx_dist.messages import printable, show
from ltx_dist.strict_files import StrictLoader, yaml_errors

if TYPE_CHECKING:
    from ltx_dist.inputs.config import RenderConfig

NOT_VARIED = ("prompt", "name", "num_videos_per_prompt", "vary", "meta")

VARY_FORM = "FIELD=VALUES, such as seed=0-4"

MAX_LABEL = 24
"""Maximum characters of a string's label; longer ones end in a digest."""


@dataclass(frozen=True, slots=True)
class Value:
    """One of the values of an axis. label: made of `A-Z a-z 0-9 . _ -`; it depends only on the value."""

    label: str
    value: Any


@dataclass(frozen=True, slots=True)
class Axis:
    """A field and the values that it takes."""

    field: str
    values: tuple[Value, ...]


def read_axes(vary: Mapping[Any, Any]) -> tuple[dict[str, Axis], list[str]]:
    """The valid axes of a mapping from fields to values, by field, and the errors of the invalid ones."""
    axes: dict[str, Axis] = {}
    problems: list[str] = []
    for key, given in vary.items():
        if not isinstance(key, str):
            problems.append(f"{show(key)} is not a field; put values with commas in quotes: {{seed: '0-4,10'}}")
            continue
        field = key.encode(errors="backslashreplace").decode()
        try:
            axes[field] = Axis(field, _values(field, given))
        except ValueError as error:
            problems.append(f"{printable(field)}: {error}")
    return axes, problems


def assignments(texts: Iterable[str], form: str) -> dict[str, str]:
    """`{"seed": "0-4"}` from `seed=0-4`. Raises ValueError, quoting `form`, for a text without `=` and for a name that
    is given twice."""
    found: dict[str, str] = {}
    for text in texts:
        field, equals, values = text.partition("=")
        field = field.strip()
        if not equals or not field:
            raise ValueError(f"{show(text)}: write {form}")
        if field in found:
            raise ValueError(f"{field} is given twice; give it once: {form}")
        found[field] = values.strip()
    return found


def with_vary(config: RenderConfig, vary: Mapping[str, Any], origin: str) -> RenderConfig:
    """The config with these fields varied in all clips, too. origin: where they were given, for error messages."""
    # `remember` must not change the defaults that all configs share.
    defaults = config.defaults.model_copy(update={"vary": {**(config.defaults.vary or {}), **vary}}, deep=True)
    defaults.remember({"defaults.vary": origin})
    return config.model_copy(update={"defaults": defaults})


def label_of(value: object) -> str:
    """The label of a value in a clip's name. Raises ValueError for a list or mapping, whose label must be given."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value).removesuffix(".0").replace("+", "")
    if isinstance(value, str):
        return _label_of_text(value)
    raise ValueError(f"{show(value)} has no label; give each value one: {{soft: ..., hard: ...}}")


def _label_of_text(text: str) -> str:
    """The text's letters and digits; if more than punctuation is left out, six digits of a digest are appended."""
    ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    slug = _slug(ascii_only)
    if slug and len(slug) <= MAX_LABEL and ascii_only == text:
        return slug
    digest = hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:6]
    return f"{slug[:MAX_LABEL].strip('-')}-{digest}".strip("-") if text else "none"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _values(field: str, given: object) -> tuple[Value, ...]:
    if field in NOT_VARIED:
        raise ValueError("cannot be varied; write one row per value")
    if field not in Row.model_fields:
        raise ValueError(
            "unknown key" + did_you_mean(field, [key for key in Row.model_fields if key not in NOT_VARIED])
        )
    if isinstance(given, str):
        given = _from_text(field, given)
    if isinstance(given, dict):
        labelled = cast("dict[Any, Any]", given)
        values = tuple(Value(label_of(str(label)), value) for label, value in labelled.items())
    else:
        listed = cast("list[Any]", given) if isinstance(given, list) else [given]
        values = tuple(Value(label_of(value), value) for value in listed)
    if not values:
        raise ValueError("no values; write at least one")
    _refuse_equal_labels(values)
    return values


def _from_text(field: str, text: str) -> Any:
    """`0-4,10` of whole numbers, other values separated by commas, or a list or mapping as in YAML."""
    if text.lstrip().startswith(("[", "{")):
        with yaml_errors(show(text), text, with_line=False):
            return yaml.load(text, StrictLoader)
    found: list[Any] = []
    for part in text.split(","):
        span = re.fullmatch(r"\s*([0-9]{1,19})-([0-9]{1,19})\s*", part) if int in kinds_of(field) else None
        if span is None:
            found.append(cell(field, part.strip()))
            continue
        first, last = int(span[1]), int(span[2])
        if first > last:
            raise ValueError(f"{part.strip()} is empty; write {last}-{first}")
        if last - first >= MAX_ROWS:
            raise ValueError(f"{part.strip()} is {last - first + 1} values; at most {MAX_ROWS} clips are allowed")
        found += range(first, last + 1)
    return found


def _refuse_equal_labels(values: tuple[Value, ...]) -> None:
    by_label: dict[str, Any] = {}
    for one in values:
        folded = one.label.casefold()
        if folded in by_label:
            raise ValueError(
                f"{show(one.value)} is given twice"
                if by_label[folded] == one.value
                else f"{show(by_label[folded])} and {show(one.value)} would both be named {one.label}; give each value "
                "a label: {soft: ..., hard: ...}"
            )
        by_label[folded] = one.value
