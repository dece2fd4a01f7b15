"""Runs the proofs of a script: those named on its command line, or all."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any


def run_proofs(proofs: Mapping[str, Callable[..., str]], *arguments: Any) -> None:
    """Run the proofs. Each prints what it saw; the first that fails raises, and no more are run."""
    names = sys.argv[1:] or list(proofs)
    if unknown := set(names) - set(proofs):
        sys.exit(f"no such part: {', '.join(sorted(unknown))}; the parts are {', '.join(proofs)}")
    for name in names:
        started = time.monotonic()
        seen = proofs[name](*arguments)
        print(f"{name}: {seen} ({time.monotonic() - started:.0f} s)", flush=True)
