"""Error messages for configs and prompt files: what was given, what is allowed, what was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ltx_dist.inputs.other_names import meant
from ltx_dist.messages import show

_WORDING = {
    "missing": "missing",
    "int_type": "{given} is not a whole number{whole}",
    "int_from_float": "{given} is not a whole number{whole}",
    "float_type": "{given} is not a number{point}",
    "finite_number": "{given} is not a finite number{allowed}",
    "string_type": "{given} is not text; put it in quotes",
    "string_too_short": "empty; give a value, or leave it out",
    "string_unicode": "holds half a surrogate pair, which is not a character",
    "literal_error": "{given} is not one of {expected}",
    "model_type": "{given} is not a mapping of settings",
    "dict_type": "{given} is not a mapping",
    "list_type": "{given} is not a list; put it in brackets",
    "greater_than": "{given} is too small{allowed}",
    "greater_than_equal": "{given} is too small{allowed}",
    "less_than": "{given} is too large{allowed}",
    "less_than_equal": "{given} is too large{allowed}",
    "value_error": "{error}",
}
"""Our messages for pydantic's error types."""

_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
"""Our words for the bounds of a pydantic field."""


def explain(error: ErrorDetails, field: FieldInfo | None, known: Iterable[str], key: str) -> str:
    """One of pydantic's errors about `key`, in a few words. known: the keys that could have been meant."""
    if error["type"] in ("extra_forbidden", "invalid_key"):
        return "unknown key" + did_you_mean(key, known)
    given, context, allowed = show(error["input"]), error.get("ctx", {}), _allowed(field)
    if key.rpartition(".")[2] == "seed" and error["input"] in (-1, -1.0, "-1", "random"):
        return f"{given} is not a seed; leave it out: the default is defaults.seed plus the position in the file"
    return _WORDING.get(error["type"], "{given}: {message}").format(
        given=given,
        allowed=allowed,
        whole=_as_whole(error["input"]) or allowed,
        point=_with_point(error["input"]) or allowed,
        expected=context.get("expected", ""),
        error=context.get("error", ""),
        message=error["msg"],
    )


def _as_whole(given: object) -> str:
    """`; write 42` for 42.0, '42.0', '042' and '42', which were meant as whole numbers; otherwise empty."""
    text = str(given).strip() if isinstance(given, float | str) else ""
    match = re.fullmatch(r"([+-]?)0*([0-9]{1,19})(?:\.0*)?", text)
    return _write(given, f"{match[1].strip('+')}{match[2]}") if match else ""


def _with_point(given: object) -> str:
    """`; write 3.5` for '3.5' and for 3,5, as spreadsheets in many countries write it; otherwise empty."""
    match = re.fullmatch(r"([+-]?[0-9]+)(?:[,.]([0-9]+))?", given.strip()) if isinstance(given, str) else None
    return _write(given, match[1] if match[2] is None else f"{match[1]}.{match[2]}") if match else ""


def _write(given: object, number: str) -> str:
    return f"; write {number}" + (" without quotes" if given == number else "")


def _allowed(field: FieldInfo | None) -> str:
    """`; it must be at least 1 and at most 9`; empty for a field without bounds."""
    limits = []
    for bound in field.metadata if field else ():
        for name, word in _BOUNDS.items():
            limit = getattr(bound, name, None)
            if limit is not None:
                limits.append(f"{word} {limit:g}" if abs(limit) < 1e6 else f"{word} {limit}")
    return f"; it must be {' and '.join(limits)}" if limits else ""


def explain_within(model: type[BaseModel] | None, details: ErrorDetails) -> str:
    """An error about a field of `model`, and where inside the field: `[0].frame_index: ...`."""
    assert model is not None
    field, known, name, where = None, model.model_fields, "", ""
    for part in details["loc"]:
        if isinstance(part, int):
            where += f"[{part}]"
            continue
        known = model.model_fields if model is not None else {}
        field, name = known.get(part), part
        where += f".{part}" if where else part
        model = _model_in(field.annotation) if field else None
    message = explain(details, field, known, name)
    inside = where.partition(str(details["loc"][0]))[2].removeprefix(".")
    return f"{inside}: {message}" if inside else message


def _model_in(annotation: Any) -> Any:
    """The model of a field's value, or of its list's items; None for plain values."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part))), None)


def did_you_mean(key: str, known: Iterable[str]) -> str:
    """`; did you mean X?` with our name for another program's key or the nearest known key; otherwise the known keys.

    Dotted keys must differ only in their last part.
    """
    known = list(known)
    if other := meant(key, known):
        return f"; did you mean {other}?"
    ends = {name.rpartition(".")[2]: name for name in known}
    nearest = difflib.get_close_matches(key.rpartition(".")[2], ends, n=1, cutoff=0.6)
    return f"; did you mean {ends[nearest[0]]}?" if nearest else f"; known are {', '.join(known)}"
