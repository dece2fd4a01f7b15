"""Finished clips as the rows of a table: one column per setting, digest and measurement, each of one kind of value."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ltx_dist.report.finished_clips import FinishedClip

Row = dict[str, Any]

RENAMED = {"video": "start_video"}
"""Column names that differ from settings: Hugging Face's `videofolder` uses `video` for the clip itself."""

DIGESTS = ("render_key", "latents_sha256", "frames_sha256", "audio_sha256", "mp4_sha256", "mp4_bytes", "sampling_rate")

AS_JSON = ("versions", "settings", "variation", "also")
"""Parts of a sidecar that become one column of JSON each."""


def clip_table(clips: Iterable[FinishedClip]) -> list[Row]:
    """One row per clip, all with the same columns, in the same order.

    Values are texts, numbers, booleans or None; lists and mappings become JSON. Tools that read tables need one type
    per column, so a column with values of several types is all text, and a column without values is left out.
    """
    return _uniform([_row(clip) for clip in clips])


def _row(clip: FinishedClip) -> Row:
    told, request = clip.sidecar, clip.request
    row: Row = {"file_name": f"{clip.name}.mp4", "name": clip.name, "prompt": request["prompt"]}
    row |= {RENAMED.get(key, key): value for key, value in request.items() if key != "request_id"}
    row |= {f"meta.{key}": value for key, value in _mapping(told.get("meta")).items()}
    row |= {key: told[key] for key in DIGESTS if key in told}
    checkpoint = _mapping(told.get("checkpoint"))
    row |= {"checkpoint": checkpoint.get("name"), "checkpoint_sha256": _mapping(checkpoint.get("sha256")) or None}
    stages = {stage: _mapping(report) for stage, report in _mapping(told.get("stages")).items()}
    seconds = {stage: float(report["seconds"]) for stage, report in stages.items() if _is_number(report.get("seconds"))}
    row["seconds"] = sum(seconds.values()) if seconds else None
    row |= {f"seconds.{stage}": spent for stage, spent in seconds.items()}
    row |= {key: _mapping(told.get(key)) or None for key in AS_JSON}
    return {_column(key): _cell(value) for key, value in row.items()}


def _column(key: str) -> str:
    """The column's name. `videofolder` opens the values of a column that ends in `_file_name` as videos, so such names
    are changed."""
    return f"{key.removesuffix('_file_name')}_filename" if key.endswith("_file_name") else key


def _cell(value: Any) -> Any:
    if isinstance(value, int | float) and not _fits_a_column(value):
        return None
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, sort_keys=True) if value else None
    return value


def _uniform(rows: Sequence[Row]) -> list[Row]:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    kinds = {key: {type(row[key]) for row in rows if row.get(key) is not None} for key in columns}
    return [{key: _as(kinds[key], row.get(key)) for key in columns if kinds[key]} for row in rows]


def _as(kinds: set[type], value: Any) -> Any:
    if value is None or len(kinds) == 1:
        return value
    if kinds == {int, float}:
        return float(value)
    return value if isinstance(value, str) else json.dumps(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and _fits_a_column(value)


def _fits_a_column(value: float) -> bool:
    """Whether tables can hold the number. Only a foreign sidecar has others: NaN, or more than 64 bits."""
    return math.isfinite(value) if isinstance(value, float) else -(1 << 63) <= value < 1 << 63


def with_paths(rows: Sequence[Row], clips: Sequence[FinishedClip]) -> list[Row]:
    """The same rows with the absolute path or URL of each mp4, for a table outside the output folder."""
    return [{"path": clip.location} | row for row, clip in zip(rows, clips, strict=True)]
