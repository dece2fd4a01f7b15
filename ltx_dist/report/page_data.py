"""The clips of the page as JSON: small, because a batch may have ten thousand of them, and read by `data.js`.

Values that all clips share are written once. Texts are unchanged from the files; `data.js` cleans what it shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ltx_dist.pipeline.recipe import Recipe
from ltx_dist.report.clips import Clip


def clips_data(clips: Sequence[Clip], recipe: Recipe) -> dict[str, Any]:
    """The page's data about its clips.

    row, settings: what all clips share, by key, as JSON texts; each clip has only its own beside them. options and
    workers are tables that clips point into; the stages of a clip are pairs of worker and seconds, None where it did
    not run, in the order of `stages`.
    """
    shared = {part: _shared([getattr(clip, part) for clip in clips if clip.row]) for part in ("row", "settings")}
    options = list(dict.fromkeys(clip.options for clip in clips))
    workers = list(dict.fromkeys(worker for clip in clips for worker, _ in (clip.stages or {}).values()))
    tables = {"options": _positions(options), "workers": _positions(workers)}
    return {
        **shared,
        "options": options,
        "workers": workers,
        "stages": [stage.label.verb for stage in recipe],
        "clips": [_clip_data(clip, shared, tables, recipe) for clip in clips],
    }


def _clip_data(
    clip: Clip, shared: Mapping[str, Mapping[str, str]], tables: Mapping[str, Mapping[str, int]], recipe: Recipe
) -> dict[str, Any]:
    ran = clip.stages or {}
    stages = [
        [tables["workers"][ran[stage][0]], float(f"{ran[stage][1]:.4g}")] if stage in ran else None
        for stage in recipe.names
    ]
    data = {
        "name": clip.name,
        "status": clip.status,
        "url": clip.url,
        "poster": clip.poster,
        "also": clip.also,
        "error": clip.error,
        "row": _own(clip.row, shared["row"]),
        "settings": _own(clip.settings, shared["settings"]),
        "options": tables["options"][clip.options] if clip.row else None,
        "stages": stages if ran else None,
        "digests": clip.digests,
        "notes": clip.notes,
        "pictures": clip.pictures,
        "sound": clip.sampling_rate,
    }
    return {key: value for key, value in data.items() if value or (value is not None and key in ("row", "options"))}


def _shared(parts: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The entries that are equal in all parts."""
    first, *others = parts or [{}]
    shared = dict(first)
    for part in others:
        shared = {key: value for key, value in shared.items() if part.get(key) == value}
    return shared


def _own(part: Mapping[str, str] | None, shared: Mapping[str, str]) -> dict[str, str] | None:
    return None if part is None else {key: value for key, value in part.items() if key not in shared}


def _positions(values: Iterable[str]) -> dict[str, int]:
    return {value: position for position, value in enumerate(values)}
