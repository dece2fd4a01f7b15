"""`parquet`: the table of clips in one file that holds the mp4s too, in the form of Hugging Face's `Video` column."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ltx_dist.report.clip_table import clip_table
from ltx_dist.report.finished_clips import FinishedClip

GROUP_BYTES = 100_000_000
"""Bytes of mp4s per row group, which readers load completely: a compromise between many small reads and a large one."""


def write(clips: Sequence[FinishedClip], place: Path) -> None:
    """Columns: `video`, with `bytes` and `path` (the file's name), and all of the table."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ValueError("export parquet: pyarrow is not installed; pip install 'pyarrow>=17'") from None

    rows = clip_table(clips)
    table = pa.Table.from_pylist(rows)
    video = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    features: dict[str, Any] = {"video": {"_type": "Video"}}
    features |= {field.name: {"dtype": _dtype(pa, field.type), "_type": "Value"} for field in table.schema}
    schema = pa.schema([pa.field("video", video), *table.schema])
    schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    with pq.ParquetWriter(place, schema) as writer:
        for start, end in _groups(clips):
            videos = [{"bytes": clip.mp4.read_bytes(), "path": f"{clip.name}.mp4"} for clip in clips[start:end]]
            group = table.slice(start, end - start).add_column(0, "video", pa.array(videos, video))
            writer.write_table(group.cast(schema))


def _dtype(pa: Any, kind: Any) -> str:
    return {pa.string(): "string", pa.int64(): "int64", pa.float64(): "float64", pa.bool_(): "bool"}[kind]


def _groups(clips: Sequence[FinishedClip]) -> list[tuple[int, int]]:
    """Start and end of each row group."""
    starts, used = [0], 0
    for index, clip in enumerate(clips):
        size = clip.mp4.stat().st_size
        if used and used + size > GROUP_BYTES:
            starts.append(index)
            used = 0
        used += size
    return list(zip(starts, [*starts[1:], len(clips)], strict=True))
