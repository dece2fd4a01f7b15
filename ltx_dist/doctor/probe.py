"""Runs checks of torch, Ray and codecs in a separate process, because they may be missing, hang or crash."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

PROBE_SECONDS = 120.0
"""The first import of torch from a cold network disk takes tens of seconds."""


class ProbeError(Exception):
    """A probe gave no answer; the message is one line."""


def probe(module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The JSON that `python -m module` prints in its last line. Raises ProbeError with its last output otherwise."""
    command = [sys.executable, "-m", module, *arguments]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_SECONDS,
            env={**os.environ, **(environment or {})},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ProbeError(f"no answer within {PROBE_SECONDS:.0f} s") from None
    if done.returncode < 0:
        raise ProbeError(f"crashed ({signal.Signals(-done.returncode).name})")
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    if done.returncode != 0:
        raise ProbeError(lines[-1] if lines else f"exit code {done.returncode}")
    return json.loads(lines[-1])
