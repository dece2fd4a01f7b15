"""What a check found, and how checks are run so that whatever is broken is told of and not raised."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """failure: something that was asked for will not work. warning: it works, and not as well as it could."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. remedy: what to do; empty where nothing is wrong."""

    subject: str
    status: Status
    text: str
    remedy: str = ""


def ok(subject: str, text: str) -> Finding:
    return Finding(subject, Status.OK, text)


def warning(subject: str, text: str, remedy: str) -> Finding:
    return Finding(subject, Status.WARNING, text, remedy)


def failure(subject: str, text: str, remedy: str) -> Finding:
    return Finding(subject, Status.FAILURE, text, remedy)


@dataclass(frozen=True, slots=True)
class Check:
    """subject: what it is about, should it fail itself."""

    subject: str
    run: Callable[[], Iterable[Finding]]


def examine(checks: Iterable[Check]) -> Iterator[Finding]:
    """The findings of all checks, in their order. A check that raises is a failure of what it looks at."""
    for check in checks:
        try:
            yield from check.run()
        except ModuleNotFoundError as error:
            yield failure(check.subject, f"the package {error.name} is missing", "install it: launch/setup.sh")
        except Exception as error:  # noqa: BLE001 (whatever it is, the other checks go on)
            yield failure(check.subject, f"cannot be checked: {type(error).__name__}: {error}", "see the message")
