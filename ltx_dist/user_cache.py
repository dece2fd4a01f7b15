"""The user's cache folder: digests of weights, text embeddings, and clips on
their way to a URL."""

from __future__ import annotations

import os
from pathlib import Path

MAX_PATH, MAX_PART_BYTES = 4095, 255
"""The longest path, and name of a file, that Linux takes. With a longer one, `Path.exists` raises OSError."""


def from_home(name: str, field: str) -> Path:
    """The path with `~` and `~user` resolved. field: what the path was given as, for the ValueError if that fails or if
    no file can have such a name."""
    try:
        path = Path(name).expanduser()
    except RuntimeError:
        whose = "that user" if name.startswith("~") and name[1:2] not in ("", "/") else "this user"
        raise ValueError(f"{field}: {name}: {whose} has no home folder; write the full path") from None
    if len(str(path)) > MAX_PATH or any(len(part.encode(errors="replace")) > MAX_PART_BYTES for part in path.parts):
        raise ValueError(f"{field}: {name[:60]}...: too long for the name of a file; check it")
    return path


def user_cache() -> Path:
    """`LTX_DIST_CACHE`, or `ltx_dist` in the user's cache folder. It need not exist.

    Raises ValueError where the user has no home folder and neither variable is set.
    """
    if own := os.environ.get("LTX_DIST_CACHE"):
        return from_home(own, "LTX_DIST_CACHE")
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "ltx_dist"
    try:
        return Path.home() / ".cache" / "ltx_dist"
    except RuntimeError:
        raise ValueError("this user has no home folder to keep a cache in; set LTX_DIST_CACHE or HOME") from None
