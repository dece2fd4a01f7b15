"""Wording of messages: given values, counts, sizes, durations, and several errors reported together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

MAX_MISTAKES_SHOWN = 50


class Mistakes(ValueError):
    """Several errors in the input, to be reported together.

    messages: all of them, each of which may take several lines. The text holds the first MAX_MISTAKES_SHOWN.
    """

    def __init__(self, messages: Sequence[str]) -> None:
        self.messages = tuple(messages)
        self.number = len(messages)
        beyond = self.number - MAX_MISTAKES_SHOWN
        more = [f"... and {beyond} more"] if beyond > 0 else []
        super().__init__("\n".join([*messages[:MAX_MISTAKES_SHOWN], *more]))


def show(value: object) -> str:
    """A given value as it was written, cut to a readable length and safe to print."""
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


def listed(words: Sequence[str], conjunction: str) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *others, last = words
    return f"{', '.join(others)} {conjunction} {last}" if others else last


def size(num_bytes: float) -> str:
    """`12.3 GB`, `4.5 MB`."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"


def duration(seconds: float, below_a_minute: str = ".0f") -> str:
    """`12 s`, `2 min 05 s`, `3 h 07 min`. below_a_minute: format of the number of seconds."""
    if seconds < 60:
        return f"{seconds:{below_a_minute}} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def first_line(said: BaseException | str) -> str:
    """The first line of a text, or of an error's message, else its type. An error's has at most 300 characters, because
    some servers answer with a web page."""
    if isinstance(said, str):
        return said.strip().partition("\n")[0]
    return (first_line(str(said)) or type(said).__name__)[:300]


def clean(text: str) -> str:
    """The text in one line, without characters that move a terminal's cursor, ring its bell or reverse its text."""
    return "".join(character if character.isprintable() else " " for character in text)


def clean_lines(text: str) -> str:
    """The same for a text of several lines."""
    return "\n".join(map(clean, text.split("\n")))


def tell(text: str, file: TextIO | None = None) -> None:
    """Print lines, clean: they may quote names and texts of files that come from anywhere.

    file: standard output if not given. All that the package prints goes through here or through `say` of a console;
    a lint rule refuses other calls of print.
    """
    print(clean_lines(text), file=file, flush=True)  # noqa: T201
