"""Collects the problems of a checkpoint, so that all are reported together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def attempt(problems: list[str], otherwise: T, read: Callable[[], T]) -> T:
    """`read()`; where it raises ValueError, `otherwise`, with the error's text added to `problems`."""
    try:
        return read()
    except ValueError as error:
        problems.append(str(error))
        return otherwise


def what_lies_in(folder: Path) -> str:
    """`vae/ holds a.txt, b.txt`, for a message about something that is missing there."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    return f"{folder.name}/ holds {shown or 'nothing'}"
