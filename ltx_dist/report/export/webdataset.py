"""`webdataset`: tar shards that hold, for each clip, `NAME.mp4`, `NAME.json` (its row of the table) and `NAME.txt`
(its prompt)."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

from ltx_dist.report.clip_table import clip_table
from ltx_dist.report.finished_clips import FinishedClip

SHARD_BYTES = 10**9
"""Shard size as in webdataset's own writer: large enough to read sequentially, small enough to give each of many
workers a shard."""


def write(clips: Sequence[FinishedClip], place: Path, shard_bytes: int = SHARD_BYTES) -> None:
    """Write `shard-000000.tar` and so on, each at most `shard_bytes`, or one clip, large. Equal clips give equal
    shards."""
    place.mkdir()
    keys = _keys(clips)
    shards, used, shard = 0, shard_bytes, None
    try:
        for clip, key, row in zip(clips, keys, clip_table(clips), strict=True):
            told = json.dumps(row, ensure_ascii=False).encode(errors="replace")
            prompt = clip.request["prompt"].encode(errors="replace")
            size = clip.mp4.stat().st_size + len(told) + len(prompt)
            if shard is None or used + size > shard_bytes:
                if shard is not None:
                    shard.close()
                shard, used = tarfile.open(place / f"shard-{shards:06d}.tar", "w", format=tarfile.PAX_FORMAT), 0  # noqa: SIM115
                shards += 1
            used += size
            _add(shard, f"{key}.mp4", clip.mp4.read_bytes())
            _add(shard, f"{key}.json", told)
            _add(shard, f"{key}.txt", prompt)
    finally:
        if shard is not None:
            shard.close()


def _keys(clips: Sequence[FinishedClip]) -> list[str]:
    """The keys of the samples: the clips' names with dots replaced by underscores, because webdataset ends a key at the
    first dot after the last slash.

    Raises ValueError if that makes two names equal.
    """
    found: dict[str, str] = {}
    for clip in clips:
        folder, slash, name = clip.name.rpartition("/")
        key = folder + slash + name.replace(".", "_")
        if key in found:
            raise ValueError(f"{found[key]} and {clip.name}: both are {key} in a shard; render one with another name")
        found[key] = clip.name
    return list(found)


def _add(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    shard.addfile(member, io.BytesIO(content))
