"""The output of a batch: a local folder, or a URL (`s3://`, `gs://`, ...) with a staging folder."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from ltx_dist.messages import printable, show
from ltx_dist.store.clip_names import ENDINGS, found_names, with_ending
from ltx_dist.store.files import INTERNAL, HeldFolder
from ltx_dist.store.object_store import Mirror
from ltx_dist.user_cache import user_cache


@dataclass(frozen=True, slots=True)
class Output:
    """The output of a run.

    folder: where everything is written first. mirror: uploads it if the output is a URL; otherwise None.
    held: the folder as locked by this run; None until it is locked.
    """

    folder: Path
    mirror: Mirror | None = None
    held: HeldFolder | None = None

    def locked(self, held: HeldFolder) -> Output:
        return replace(self, held=held)


def open_output(output: str, name: str = "--output") -> Output:
    """The output at a path or URL; nothing is created yet. `~` is the user's home. name: the option's, for messages.
    Raises ValueError for a URL whose protocol is unknown or not installed, and for a path that cannot be a folder.
    """
    if "://" not in output:
        return Output(_checked_folder(output, name))
    url = output.rstrip("/")
    folder = staging_folder(url)
    return Output(folder, Mirror(url, folder))


def _checked_folder(output: str, name: str) -> Path:
    if not output:
        raise ValueError(f"{name}: empty; give a folder (is a shell variable unset?)")
    if output.startswith("="):
        raise ValueError(f"{name}: {show(output)}; write `-o {output[1:]}`, or ./{output} for a folder of that name")
    try:
        folder = Path(output).expanduser()
    except RuntimeError:
        raise ValueError(f"{name}: {show(output)}: no such user; write the full path") from None
    if os.path.exists(folder) and not os.path.isdir(folder):  # unlike Path, they take a name that is too long
        raise ValueError(f"{name}: {printable(output)} is a file; give a folder")
    return folder


def require_output(folder: Path) -> None:
    """Raises ValueError unless a run has written to the folder, or to one that clips were copied from."""
    if not ((folder / INTERNAL).is_dir() or (folder / "run.json").is_file() or _has_clip(folder)):
        raise ValueError(f"{folder}: not an output folder of ltx-dist; `ltx-dist render ... -o {folder}` makes one")


def _has_clip(folder: Path) -> bool:
    """Whether there is an mp4 with its sidecar."""
    clips = (folder / name for name in found_names(folder))
    return any(all(with_ending(clip, ending).is_file() for ending in ENDINGS) for clip in clips)


def staging_folder(url: str) -> Path:
    """The folder for a URL in the user's cache: `~/.cache/ltx_dist/staged/s3-bucket-clips-<digest>`. It may be deleted
    between runs."""
    readable = re.sub(r"[^A-Za-z0-9._]+", "-", url)[:60].strip("-")
    return user_cache() / "staged" / f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
