"""The clips of a folder, read from its files: what the page shows of each, and the command that renders it again.

Sidecars may come from elsewhere: one that is not as ours are is a clip with a reason, never an error.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ltx_dist.pipeline.recipe import Recipe
from ltx_dist.report.copied_command import copied_command
from ltx_dist.store.clip_names import clip_names
from ltx_dist.store.found import MAX_SIDECAR_BYTES, read_found_json
from ltx_dist.store.object_store import is_uploaded


@dataclass(frozen=True, slots=True)
class Clip:
    """One card. `status` is done, failed, or unknown for an mp4 or a sidecar that lacks its other half.

    url: of the mp4, relative to the page; None without one. seconds: of work, without loading and waiting. notes: what
    else to know of it, one line each. sampling_rate: of its sound; 0 without.
    """

    name: str
    status: str
    url: str | None
    error: str = ""
    command: str = ""
    seconds: float = 0.0
    request: Mapping[str, Any] | None = None
    stages: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    mp4_sha256: str = ""
    notes: tuple[str, ...] = ()
    sampling_rate: int = 0


def read_clips(folder: Path, recipe: Recipe) -> list[Clip]:
    """Every clip of the folder, finished or failed, in the order of names (2 before 10)."""
    return [_clip(folder, name, recipe) for name in clip_names(folder)]


def _clip(folder: Path, name: str, recipe: Recipe) -> Clip:
    mp4 = f"{name}.mp4"
    there = (folder / mp4).is_file() or is_uploaded(folder, mp4)
    url = quote(os.fsencode(mp4)) if there else None
    try:
        sidecar = read_found_json(folder / f"{name}.json", MAX_SIDECAR_BYTES)
        request, done = sidecar["request"], sidecar["status"] == "done"
        stages = tuple((stage, sidecar["stages"][stage]) for stage in recipe.names if stage in sidecar["stages"])
        return Clip(
            name=name,
            status=("done" if url else "unknown") if done else "failed",
            url=url if done else None,
            error=("" if url else f"{mp4} is missing") if done else str(sidecar["error"]),
            command=copied_command(
                request, sidecar.get("settings") or {"model.checkpoint": sidecar["checkpoint"]["name"]}
            ),
            seconds=sum(_checked_seconds(report) for _, report in stages),
            request=dict(request),
            stages=stages,
            mp4_sha256=sidecar.get("mp4_sha256", ""),
            sampling_rate=int(sidecar.get("sampling_rate") or 0),
            notes=tuple(
                f"{field}: {text['tokens']} tokens, of which {text['limit']} are used"
                for field, text in sidecar.get("cut_off", {}).items()
            ),
        )
    except FileNotFoundError:
        return Clip(name, "unknown", url, f"{name}.json is missing")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError):
        return Clip(name, "unknown", url, f"{name}.json is damaged or not a sidecar")


def _checked_seconds(report: Mapping[str, Any]) -> float:
    seconds = report["seconds"]
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        raise ValueError(f"{seconds!r} are no seconds")
    return seconds
