"""Runs checks; failures are reported as findings, not raised."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """failure: something that the user asked for will not work. warning: it works, but not as well as it could."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. remedy: what to do; empty if nothing is wrong."""

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
    """A check and its subject, which names it if it raises."""

    subject: str
    run: Callable[[], Iterable[Finding]]


def examine(checks: Iterable[Check]) -> Iterator[Finding]:
    """The findings of all checks, in order. A check that raises becomes a failure of its subject."""
    for check in checks:
        try:
            yield from check.run()
        except ModuleNotFoundError as error:
            yield failure(
                check.subject, f"the package {error.name} is missing", "install ltx-dist again, with its dependencies"
            )
        except Exception as error:  # noqa: BLE001 (whatever it is, the other checks go on)
            yield failure(check.subject, f"cannot be checked: {type(error).__name__}: {error}", "see the message")
