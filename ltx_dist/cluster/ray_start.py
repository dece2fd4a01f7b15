"""Explains in one line, with a remedy, why Ray did not start or join, from what `ray.init` raises."""

from __future__ import annotations

import re

VERSIONS = re.compile(
    r"cluster was started with:\s+Ray: (\S+)\s+Python: (\S+).*started with:\s+Ray: (\S+)\s+Python: (\S+)", re.S
)


def why_not(error: Exception) -> str:
    """One line. For a folder that cannot be used it names the folder and the variable that chooses another."""
    text = str(error)
    if versions := VERSIONS.search(text):
        ray, python, our_ray, our_python = versions.groups()
        return (
            f"it runs Ray {ray} with Python {python}, and this is Ray {our_ray} with Python {our_python}; "
            "both sides need the same Ray and the same minor version of Python"
        )
    if "home directory" in text:
        return "this user has no home folder for Ray's token; set HOME to a folder that you can write to"
    if "AF_UNIX" in text:
        return "the paths of its sockets would be too long; set RAY_TMPDIR to a short one, such as /tmp"
    if isinstance(error, OSError) and error.filename is not None:
        variable = "HOME" if "/.ray" in str(error.filename) else "RAY_TMPDIR"
        return f"{error.filename}: {error.strerror}; set {variable} to a folder that you can write to"
    return text.partition("\n")[0]
