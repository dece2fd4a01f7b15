"""Whether this process has joined a Ray cluster, as a program that called `ray.init()` has. Imports no Ray."""

from __future__ import annotations

import sys


def is_joined() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()
