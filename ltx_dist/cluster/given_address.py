"""Which option or variable gave a cluster's address, and whether this process has joined a cluster. Imports no Ray."""

from __future__ import annotations

import os
import sys
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


def is_joined() -> bool:
    """Whether this process has joined a Ray cluster, as a program that called `ray.init()` has."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()
