"""Lists the probes in the order in which they are run, and runs one of them in this process.

python -m gpu_probes.probe NAME SCALE FILE      runs a probe and appends its rows to FILE
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TINY_SECONDS = 120.0
"""Time limit of a probe at tiny size. Most of it is for importing torch and diffusers on a busy machine."""

EXPANDABLE = {"PYTORCH_ALLOC_CONF": "expandable_segments:True", "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
"""The second name is for torch before 2.9."""


@dataclass(frozen=True, slots=True)
class Probe:
    """function: `module.function` of this package. command: which of the three 10-minute commands runs it.

    seconds: how long it takes on an H100, estimated. It is stopped after twice as long.
    """

    name: str
    function: str
    command: int
    seconds: float
    environment: Mapping[str, str] = field(default_factory=dict[str, str])

    def limit(self, scale: str) -> float:
        return TINY_SECONDS if scale == "tiny" else 2 * self.seconds


PROBES = (
    Probe("facts", "card.facts", 1, 15),
    Probe("convolution", "card.convolution", 1, 15),
    Probe("parity", "parity.small", 1, 60),
    Probe("decode_caps", "decoding.caps", 1, 40),
    Probe("reserved", "reserved.reserved", 1, 60),
    Probe("reserved_expandable", "reserved.reserved", 1, 60, EXPANDABLE),
    Probe("parity_2b", "parity.full_2b", 1, 50),
    Probe("shortages", "shortages.shortages", 1, 20),
    Probe("lost", "shortages.lost", 1, 12),
    Probe("link", "card.link", 1, 20),
    Probe("parity_13b", "parity.full_13b", 1, 70),
    Probe("frames", "decoding.frames", 1, 12),
    Probe("slots", "decoding.slots", 1, 40),
    Probe("capped", "batches.capped", 2, 180),
    Probe("short", "batches.short", 2, 180),
    Probe("offload", "batches.offload", 2, 120),
    Probe("streamed", "streams.streamed", 3, 120),
    Probe("float8", "streams.float8", 3, 80),
    Probe("shared", "streams.shared", 3, 60),
    Probe("reading", "streams.reading", 3, 40),
)


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Append a line that is on disk when this returns, because the process may end at any time."""
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def main(name: str, scale_name: str, path: Path) -> None:
    probe = next(probe for probe in PROBES if probe.name == name)
    from .scale import scale_of  # imports torch

    module, function = probe.function.split(".")
    measure = getattr(importlib.import_module(f"gpu_probes.{module}"), function)
    for row in measure(scale_of(scale_name)):
        append(path, {"probe": name, **row})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
