"""What the readers of prompt files find: rows, what is wrong, and what may be other than meant, each with its line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Item:
    """A row as read: its line in the file (from 1) and whatever stands there."""

    line: int
    content: Any


@dataclass(frozen=True, slots=True)
class Problem:
    """A line of the file (from 1) and what is wrong there."""

    line: int
    message: str


@dataclass(frozen=True, slots=True)
class Doubt:
    """A line of the file (from 1) and what there may be other than it was meant: a warning, not an error."""

    line: int
    message: str


Found = Item | Problem | Doubt
