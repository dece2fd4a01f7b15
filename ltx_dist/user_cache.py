"""Where on this machine the package keeps what it can make again: digests of weights, text embeddings; and clips on
their way to a URL."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """`LTX_DIST_CACHE`, or `ltx_dist` in the user's cache folder. It need not exist."""
    if own := os.environ.get("LTX_DIST_CACHE"):
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path("~/.cache").expanduser()) / "ltx_dist"
