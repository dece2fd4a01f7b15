"""Converts settings written as text, in a table's cell or on the command line, to the values of their fields."""

from __future__ import annotations

import json
import re
from typing import Any, get_args

from ltx_dist.inputs.prompt_row import Row

_NESTED = ("conditions", "second_pass", "loras", "vary", "meta")
"""Fields whose text may be JSON."""


def cell(field: str, text: str) -> Any:
    """A number if the field takes one and the text is one; other text fails the field's own check."""
    kinds, stripped = kinds_of(field), text.strip()
    if int in kinds and re.fullmatch(r"[+-]?[0-9]{1,400}", stripped):
        return int(stripped)
    if float in kinds and re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", stripped):
        return float(stripped)
    if bool in kinds and stripped in ("true", "false"):
        return stripped == "true"
    if field in _NESTED and stripped.startswith(("[", "{")):
        try:
            return json.loads(stripped)
        except (ValueError, RecursionError):
            return text
    return stripped if field == "name" else text


def kinds_of(field: str) -> tuple[Any, ...]:
    """The types that a field of a row accepts."""
    return get_args(Row.model_fields[field].annotation)
