"""The clips of a folder, read from its files: what the page shows of each, and the command that renders it again.

Sidecars may come from elsewhere: one that is not as ours are is a clip with a reason, never an error.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ltx_dist.inputs.prompt_row import Row
from ltx_dist.pipeline.recipe import Recipe
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.store.found import MAX_SIDECAR_BYTES, read_found_json
from ltx_dist.store.object_store import is_uploaded
from ltx_dist.store.publisher import RESERVED_NAMES


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
    names = {path.stem for path in folder.glob("*.mp4")} | {path.stem for path in folder.glob("*.json")}
    return [_clip(folder, name, recipe) for name in sorted(names - RESERVED_NAMES, key=_natural)]


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
            command=_command(request, sidecar.get("settings") or {"model.checkpoint": sidecar["checkpoint"]["name"]}),
            seconds=sum(_checked_seconds(report) for _, report in stages),
            request=dict(request),
            stages=stages,
            mp4_sha256=sidecar.get("mp4_sha256", ""),
            sampling_rate=int(sidecar.get("sampling_rate", 0)),
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


_UNASKED: dict[str, Any] = {
    field.name: json.loads(json.dumps(field.default)) for field in fields(RenderRequest) if field.default is not MISSING
}
"""Settings of a request that says nothing of them; there are some that a row cannot have."""


def _command(request: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """What renders the clip again, for a POSIX shell: every setting of its request as a prompt file of one row.

    settings: what the config must say, by dotted key. printf and not echo, which in some shells reads the backslashes
    of JSON. A setting of null is one not given.
    """
    asked = _with_sound(request) if request.get("sound") else request
    given = {key: value for key, value in asked.items() if value is not None and key != "request_id"}
    row = {"name": request["request_id"]} | {
        key: value for key, value in given.items() if key in Row.model_fields or value != _UNASKED.get(key)
    }
    command = f"printf '%s\\n' {shlex.quote(json.dumps(row))} | ltx-dist render - -o again"
    for key, value in settings.items():
        if (key, value) != ("model.checkpoint", "demo"):
            text = value if isinstance(value, str) else json.dumps(value)
            command += f" --set {shlex.quote(f'{key}={text}')}"
    return command


def _with_sound(request: Mapping[str, Any]) -> dict[str, Any]:
    """A request of LTX-2 in the words of a row: its sound's settings side by side, its media by their places."""
    row = {key: value for key, value in request.items() if key not in ("sound", "second_pass", "conditions")}
    row |= {key: value for key, value in request["sound"].items() if value not in (None, [])}
    if second := request.get("second_pass"):
        row["second_pass"] = {
            key: second[key] for key in ("sigmas", "adain_factor", "tone_map_compression_ratio", "audio")
        }
    else:
        row["recipe"] = "one_pass"
    if conditions := request.get("conditions"):
        row["conditions"] = [
            {"video" if one["is_video"] else "image": one["place"]}
            | {key: one[key] for key in ("frame_index", "strength", "fit", "crf")}
            | ({key: one[key] for key in ("start_frame", "num_frames")} if one["is_video"] else {})
            for one in conditions
        ]
    return row


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name)]
