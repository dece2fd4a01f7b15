"""Environment variables for our own processes. A program that imports the package keeps its own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

CUDA_DEVICE_ORDER = "CUDA_DEVICE_ORDER"
CUDA_VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"

OURS = {
    # Read by OpenMP when torch loads it. Waiting OpenMP threads spin by default; where another process wants the core,
    # two threads are then 30 times slower than one (docs/decisions.md).
    "OMP_WAIT_POLICY": "PASSIVE",
    # Read by CUDA when it starts. Its own order is the fastest card first; nvidia-smi, by which plans are made, and Ray
    # number cards by their slots. Where cards are unequal, a stage would find itself on another one than planned.
    CUDA_DEVICE_ORDER: "PCI_BUS_ID",
    # The AV1 encoder writes twenty lines about each clip to stderr, in the midst of the live view; 1 is errors alone.
    "SVT_LOG": "1",
}
"""For the command line and for worker processes, which set them before torch is loaded."""


def set_ours() -> None:
    """Set `OURS` for this process and those that it starts, where the user has not set them."""
    for name, value in OURS.items():
        os.environ.setdefault(name, value)


@contextmanager
def added(variables: Mapping[str, str]) -> Iterator[None]:
    """Set the variables that are unset, for processes that are started in the block."""
    with changed({name: value for name, value in variables.items() if name not in os.environ}):
        yield


@contextmanager
def changed(variables: Mapping[str, str]) -> Iterator[None]:
    """Set the variables, whether they are set or not, for processes that are started in the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
