"""The files that `output.also` asks for beside a clip's mp4: what a sidecar records about them, and whether they exist.

They are published before the mp4, whose seal lists them, so a published clip has all of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltx_dist.media.file_formats import ALSO_ENDINGS
from ltx_dist.store.clip_names import with_ending
from ltx_dist.store.found import ForeignFileError, open_found, parse_json, sha256_of, size_of

Recorded = Mapping[str, Mapping[str, Any]]
"""By ending, the `sha256` and `bytes` of a file."""


def recorded_also(sidecar: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Digest and size of each such file, from a sidecar. Endings and records that are not ours are left out."""
    found = sidecar.get("also")
    if not isinstance(found, dict):
        return {}
    return {ending: file for ending, file in found.items() if ending in ALSO_ENDINGS and isinstance(file, dict)}


def sealed_also(facts: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Digest and size of each such file, from the seal of an mp4."""
    try:
        return recorded_also({"also": parse_json(facts["also"])})
    except (KeyError, ValueError):  # there are none, or the seal is not ours
        return {}


def are_there(also: Recorded, clip: Path) -> bool:
    """Whether all files have the recorded sizes; `verify` checks their content. clip: a path without an ending."""
    try:
        return all(os.stat(with_ending(clip, ending)).st_size == file.get("bytes") for ending, file in also.items())
    except OSError:
        return False


def problem_of(also: Recorded, clip: Path) -> str | None:
    """The first problem among the files, which are read whole; None if all are what was published."""
    for ending, file in also.items():
        path = with_ending(clip, ending)
        try:
            with open_found(path) as opened:
                if size_of(opened) != file.get("bytes"):
                    return f"{path.name} is not the file that was published (its size differs)"
                if sha256_of(opened) != file.get("sha256"):  # a rerun, which looks at sizes, would keep it
                    return f"{path.name} is not the file that was published; remove it, and a rerun makes it again"
        except FileNotFoundError:
            return f"{path.name} is missing"
        except ForeignFileError as error:
            return str(error)
        except OSError as error:
            return f"{path.name} cannot be read: {error.strerror}"
    return None
