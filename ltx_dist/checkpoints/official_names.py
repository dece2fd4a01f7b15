"""The tensors that an official file must have, as listed by tools/make_official_names.py from diffusers' classes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from ltx_dist.checkpoints.versions import read_config


def missing_tensors(part: str, names: Collection[str]) -> list[str]:
    """Names that a file lacks. part: `transformer`, whose names have no prefix here, or the config of the VAE.

    A list of equal members has as many as the file has of it.
    """
    given = set(names)
    return [
        name for pattern in read_config("official_names")[part] for name in _expand(pattern, given) if name not in given
    ]


def _expand(pattern: str, names: set[str]) -> Iterator[str]:
    prefix, numbered, rest = pattern.partition("#")
    if not numbered:
        yield pattern
        return
    begins = re.compile(rf"{re.escape(prefix)}(\d+)\.")
    found = [int(match[1]) for name in names if (match := begins.match(name))]
    yield from (f"{prefix}{number}{rest}" for number in range(max(found, default=-1) + 1))
