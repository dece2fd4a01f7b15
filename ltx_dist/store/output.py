"""Where a batch goes: a local folder, or a URL (`s3://`, `gs://`, ...) with a folder that stages for it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from ltx_dist.store.object_store import Mirror
from ltx_dist.user_cache import user_cache


@dataclass(frozen=True, slots=True)
class Output:
    """`folder`: where everything is written first. `mirror`: the other side of it, if the output is a URL."""

    folder: Path
    mirror: Mirror | None = None


def open_output(output: str) -> Output:
    """Nothing is made or asked for yet. Raises ValueError for a URL of a kind that is not known or not installed."""
    if "://" not in output:
        return Output(Path(output))
    url = output.rstrip("/")
    folder = staging_folder(url)
    return Output(folder, Mirror(url, folder))


def staging_folder(url: str) -> Path:
    """One a URL, in the user's cache: `~/.cache/ltx_dist/staged/s3-bucket-clips-<digest>`. It may be deleted between
    runs."""
    readable = re.sub(r"[^A-Za-z0-9._]+", "-", url)[:60].strip("-")
    return user_cache() / "staged" / f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
