"""How a mistake in a config or a prompt file is put into words: what was given, what is allowed, what was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

_WORDING = {
    "missing": "missing",
    "int_type": "{given} is not a whole number{allowed}",
    "int_from_float": "{given} is not a whole number{allowed}",
    "float_type": "{given} is not a number{allowed}",
    "finite_number": "{given} is not a finite number{allowed}",
    "string_type": "{given} is not text; put it in quotes",
    "string_too_short": "empty; give a value, or leave it out",
    "string_unicode": "holds half a surrogate pair, which is no character",
    "literal_error": "{given} is not one of {expected}",
    "model_type": "{given} is not a mapping of settings",
    "greater_than": "{given} is too small{allowed}",
    "greater_than_equal": "{given} is too small{allowed}",
    "less_than": "{given} is too large{allowed}",
    "less_than_equal": "{given} is too large{allowed}",
    "value_error": "{error}",
}
"""Ours for pydantic's error types."""

_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
"""Ours for the bounds that a pydantic field can have."""


def explain(error: ErrorDetails, field: FieldInfo | None, known: Iterable[str], key: str) -> str:
    """One of pydantic's errors about `key` in a few words. `known` are the keys that could have been meant."""
    if error["type"] in ("extra_forbidden", "invalid_key"):
        return "unknown key" + did_you_mean(key, known)
    given, context = show(error["input"]), error.get("ctx", {})
    return _WORDING.get(error["type"], "{given}: {message}").format(
        given=given,
        allowed=_allowed(field),
        expected=context.get("expected", ""),
        error=context.get("error", ""),
        message=error["msg"],
    )


def _allowed(field: FieldInfo | None) -> str:
    """`; it must be at least 1 and at most 9`, or nothing for a field without bounds."""
    limits = []
    for bound in field.metadata if field else ():
        for name, word in _BOUNDS.items():
            limit = getattr(bound, name, None)
            if limit is not None:
                limits.append(f"{word} {limit:g}" if abs(limit) < 1e6 else f"{word} {limit}")
    return f"; it must be {' and '.join(limits)}" if limits else ""


def did_you_mean(key: str, known: Iterable[str]) -> str:
    """`; did you mean X?` for the nearest known key, else the known ones. Of dotted keys only the ends differ."""
    known = list(known)
    ends = {name.rpartition(".")[2]: name for name in known}
    nearest = difflib.get_close_matches(key.rpartition(".")[2], ends, n=1, cutoff=0.6)
    return f"; did you mean {ends[nearest[0]]}?" if nearest else f"; known are {', '.join(known)}"


def show(value: object) -> str:
    """A given value as a person wrote it, cut to a readable length and safe to print."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def printable(text: str) -> str:
    """`text` itself, or its escaped form where it would move a terminal's cursor."""
    return text if text.isprintable() else repr(text)


def count(number: int, noun: str) -> str:
    """`1 clip`, `2 clips`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
