"""Converts a program's Python objects to rows, which are then checked like those of a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike, fspath
from typing import Any

import numpy as np

from ltx_dist.inputs.rows import MAX_ROWS
from ltx_dist.messages import show


def given_rows(prompts: Any) -> list[Any]:
    """The rows of an iterable of strings and mappings, a pandas DataFrame or a Ray Dataset.

    NumPy values become Python's, and NaN, pandas' mark for an empty cell, becomes None.
    Raises ValueError if it is none of these, empty or too long.
    """
    if isinstance(prompts, Mapping | bytes):
        raise ValueError(f"prompts: {show(prompts)} is one row; put it into a list")
    if hasattr(prompts, "columns") and hasattr(prompts, "to_dict"):  # iterating a DataFrame gives its column names
        prompts = prompts.to_dict("records")
    elif hasattr(prompts, "iter_rows"):
        prompts = prompts.iter_rows()
    if not isinstance(prompts, Iterable):
        raise ValueError(f"prompts: {show(prompts)}: give a path, or a list of strings or mappings")
    items: list[Any] = []
    for position, row in enumerate(prompts):
        if position == MAX_ROWS:
            raise ValueError(f"prompts: more than {MAX_ROWS} prompts; render them in several batches")
        items.append(plain(row))
    if not items:
        raise ValueError("prompts: empty; give at least one")
    return items


def plain(value: Any) -> Any:
    """The value converted to JSON types, which are all that the strict checks accept."""
    if isinstance(value, Mapping):
        return {plain(key): plain(content) for key, content in value.items()}
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple | range):
        return [plain(content) for content in value]
    if isinstance(value, PathLike):
        return fspath(value)
    return None if isinstance(value, float) and value != value else value
