"""The clips of a folder, read from its files: what the page shows of each, and the row that renders it again.

Sidecars may come from elsewhere: one that is not ours gives a clip of status `unknown` with a reason, never an error.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ltx_dist.media.sources import path_here
from ltx_dist.pipeline.recipe import Recipe
from ltx_dist.report.copied_command import options_of, row_of
from ltx_dist.store.clip_names import clip_names, with_ending
from ltx_dist.store.found import MAX_SIDECAR_BYTES, read_found_json
from ltx_dist.store.object_store import is_uploaded
from ltx_dist.store.other_files import recorded_also

DIGESTS = ("frames_sha256", "audio_sha256", "mp4_sha256")
"""The digests that the page shows, of what one sees and hears; the others are in the sidecar."""

Picture = tuple[str, str, bool]
"""What a clip was made from: a label, the file's URL relative to the page, and whether it is a video."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One card. `status` is done, failed, or unknown for an mp4 or a sidecar that lacks its other half.

    url, poster: of the mp4 and its still picture, relative to the page; None without one. also: of the files beside it,
    by ending.
    row: every setting but the name as a prompt file has it, by field, as JSON texts: numbers keep all their digits.
    settings: of the config, by dotted key, and what the prompt file says in `meta`, as JSON texts; options: those of
    the config for a command line.
    stages: worker and seconds of work by stage. notes: further lines to show about the clip.
    sampling_rate: of its sound, in Hz; 0 without sound.
    """

    name: str
    status: str
    url: str | None
    poster: str | None = None
    also: Mapping[str, str] | None = None
    error: str = ""
    row: Mapping[str, str] | None = None
    settings: Mapping[str, str] | None = None
    options: str = ""
    stages: Mapping[str, tuple[str, float]] | None = None
    digests: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    sampling_rate: int = 0


def read_clips(folder: Path, recipe: Recipe) -> list[Clip]:
    """All clips of the folder, finished or failed, sorted by name (2 before 10)."""
    return [_clip(folder, name, recipe) for name in clip_names(folder)]


def _clip(folder: Path, name: str, recipe: Recipe) -> Clip:
    url = _url_of(folder, f"{name}.mp4")
    try:
        sidecar = read_found_json(with_ending(folder / name, ".json"), MAX_SIDECAR_BYTES)
        request, done = sidecar["request"], sidecar["status"] == "done"
        settings = sidecar.get("settings") or {"model.checkpoint": sidecar["checkpoint"]["name"]}
        meta = {f"meta.{key}": value for key, value in (sidecar.get("meta") or {}).items()}
        return Clip(
            name=name,
            status=("done" if url else "unknown") if done else "failed",
            url=url if done else None,
            poster=_url_of(folder, f"{name}.webp") if done else None,
            also={ending: file for ending in recorded_also(sidecar) if (file := _url_of(folder, f"{name}{ending}"))},
            error=("" if url else f"{name}.mp4 is missing") if done else str(sidecar["error"]),
            row={key: json.dumps(value) for key, value in row_of(request, settings).items() if key != "name"},
            settings={key: json.dumps(value) for key, value in (settings | meta).items()},
            options=options_of(settings),
            stages={
                stage: _worker_and_seconds(sidecar["stages"][stage])
                for stage in recipe.names
                if stage in sidecar["stages"]
            },
            digests={key: str(sidecar[key]) for key in DIGESTS if sidecar.get(key)},
            sampling_rate=int(sidecar.get("sampling_rate") or 0),
            notes=tuple(
                f"{field}: {text['tokens']} tokens, of which {text['limit']} are used"
                for field, text in sidecar.get("cut_off", {}).items()
            ),
            pictures=_pictures(request, folder),
        )
    except FileNotFoundError:
        return Clip(name, "unknown", url, error=f"{name}.json is missing")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError):
        return Clip(name, "unknown", url, error=f"{name}.json is damaged or not a sidecar")


def _url_of(folder: Path, name: str) -> str | None:
    """The URL of a file in the folder, or of its upload; None if there is no such file."""
    there = (folder / name).is_file() or is_uploaded(folder, name)
    return quote(os.fsencode(name)) if there else None


def _worker_and_seconds(report: Mapping[str, Any]) -> tuple[str, float]:
    seconds = report["seconds"]
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        raise ValueError(f"{seconds!r} is not a number of seconds")
    return str(report["worker"]), float(seconds)


def _pictures(request: Mapping[str, Any], folder: Path) -> tuple[Picture, ...]:
    """The images and videos that the clip was made from; only files that still exist."""
    asked = [(f"frame {one['frame_index']}", one) for one in request.get("conditions", ())]
    asked += [(name, request[name]) for name in ("video", "reference") if request.get(name)]
    found: list[Picture] = []
    for name, one in asked:
        path = path_here(one["place"])
        if path is not None and path.is_absolute() and path.is_file():
            url = quote(os.fsencode(os.path.relpath(path, folder.resolve())))
            found.append((f"{name}: {path.name}", url, bool(one["is_video"])))
    return tuple(found)
