"""What the readers of prompt files return: rows, errors and warnings, each with its line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MAX_ROWS = 100_000
"""Maximum number of a file's rows, and of their clips."""


@dataclass(frozen=True, slots=True)
class Item:
    """A row as read: its line in the file (from 1) and its content."""

    line: int
    content: Any


@dataclass(frozen=True, slots=True)
class Problem:
    """An error: a line of the file (from 1) and a message."""

    line: int
    message: str


@dataclass(frozen=True, slots=True)
class Doubt:
    """A warning: a line of the file (from 1) and what may not be meant."""

    line: int
    message: str


Found = Item | Problem | Doubt
