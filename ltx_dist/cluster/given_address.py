"""Tracks which option or variable gave a cluster's address, so that errors about it can name it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

OPTION, VARIABLE = "--address", "RAY_ADDRESS"


class GivenAddress(NamedTuple):
    """The address of the cluster to join, None if there is none to join, and what gave it."""

    address: str | None
    source: str


def given_address(option: str | None, name: str = OPTION) -> GivenAddress:
    """The value of the option or parameter `name`, else of the variable."""
    return GivenAddress(option, name) if option else GivenAddress(os.environ.get(VARIABLE) or None, VARIABLE)


@contextmanager
def given_by(source: str) -> Iterator[None]:
    """Prefix a ValueError about an address with the option or variable that gave it."""
    try:
        yield
    except ValueError as error:
        remedy = f"; unset {VARIABLE} to render on this machine alone" if source == VARIABLE else ""
        raise ValueError(f"{source}: {error}{remedy}") from None
