"""The content of a clip's sidecar, `NAME.json`: made from a result or from an mp4's seal, and read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ltx_dist import __version__
from ltx_dist.pipeline.keys import KEY_VERSION
from ltx_dist.pipeline.payloads import SoundFacts
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.work import Completion, RenderResult
from ltx_dist.store.found import MAX_SIDECAR_BYTES, read_found_json
from ltx_dist.store.other_files import sealed_also

OF_ROW = ("meta", "variation")
"""The sidecar's notes on the clip's row. None of them changes the clip."""

Sidecar = Mapping[str, Any]
"""The content of `NAME.json`; empty if there is no such file, or it is not ours."""


def of_row(notes: Mapping[str, Any]) -> dict[str, Any]:
    """The notes on the clip's row, without the rest of the sidecar."""
    return {key: notes[key] for key in OF_ROW if key in notes}


def read_sidecar(sidecar: Path) -> dict[str, Any]:
    """The sidecar's content; empty if it is missing, damaged or not ours."""
    try:
        recorded = read_found_json(sidecar, MAX_SIDECAR_BYTES)
    except (FileNotFoundError, ValueError):
        return {}
    return recorded if isinstance(recorded, dict) else {}


def has_other_pixels(recorded: Sidecar) -> bool:
    """Whether the clip ran out of memory and was made in a way that changed its pixels.

    Sidecars without `changes_pixels` are from before it was recorded: any fallback may have changed them.
    """
    stages = recorded.get("stages")
    reports = stages.values() if isinstance(stages, dict) else ()
    found = [report for report in reports if isinstance(report, dict)]
    return any(report.get("changes_pixels", "after_no_memory" in report) for report in found)


def as_read(content: dict[str, Any]) -> dict[str, Any]:
    """The content as it would be read back from a file: tuples become lists.

    It is encoded without line breaks and sorting, which is ten times as fast: a rerun calls this for every clip.
    """
    return json.loads(json.dumps(content, allow_nan=False))


def sidecar_of(result: RenderResult, render_key: str, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The sidecar of a finished or failed clip. checkpoint: its name and digests."""
    sidecar: dict[str, Any] = {
        "status": result.status,
        "request": asdict(result.request),
        "render_key": render_key,
        "key_version": KEY_VERSION,
        "checkpoint": checkpoint,
        "versions": _versions(),
        "stages": {str(c.assignment.stage): _stage(c) for c in result.completions},  # the last run of a retried stage
    }
    if (video := result.video) is None:
        return sidecar | {"error": result.error}
    digests = {"frames_sha256": video.frames_sha256, "mp4_sha256": video.mp4_sha256, "num_frames": video.num_frames}
    digests["mp4_bytes"] = len(video.mp4)
    digests |= asdict(video.sound) if video.sound is not None else {}
    digests |= {"also": {ending: file.record for ending, file in video.also.items()}} if video.also else {}
    return sidecar | digests | {"latents_sha256": _latents_sha256(result)}


def sidecar_of_seal(request: RenderRequest, facts: dict[str, Any], checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The sidecar as far as the mp4's seal and the request can restore it; workers, times and versions are lost."""
    return {
        "status": "done",
        "request": asdict(request),
        "render_key": facts["render_key"],
        "key_version": KEY_VERSION,  # because the key equals one that this version made
        "checkpoint": checkpoint,
        "versions": {},
        "stages": {},
        "frames_sha256": facts["frames_sha256"],
        "mp4_sha256": facts["mp4_sha256"],
        "mp4_bytes": facts["mp4_bytes"],
        "num_frames": request.num_frames,
        "latents_sha256": facts.get("latents_sha256"),
        **({"also": also} if (also := sealed_also(facts)) else {}),
        **(asdict(sound) if (sound := SoundFacts.recorded(facts)) is not None else {}),
    }


def _stage(completion: Completion) -> dict[str, Any]:
    report = completion.report
    stage = {
        "worker": completion.assignment.worker_id,
        "seconds": report.seconds,
        "load_seconds": report.load_seconds,
        "peak_bytes": report.peak_bytes,
    }
    if report.made_on:
        stage["made_on"] = report.made_on
    if report.memory_refused:
        stage["memory_refused"] = True
    if completion.assignment.request_ids[1:]:
        stage["clips_in_pass"] = len(completion.assignment.request_ids)
    if report.fallback is None:
        return stage
    return stage | {"after_no_memory": report.fallback, "changes_pixels": report.changes_pixels}


def _latents_sha256(result: RenderResult) -> str | None:
    """The digest from the last successful denoising, whose latents were decoded."""
    digests = [
        c.report.latents_sha256[c.assignment.request_ids.index(result.request.request_id)]
        for c in result.completions
        if c.report.latents_sha256
    ]
    return digests[-1] if digests else None


@cache
def _versions() -> dict[str, str]:
    """Versions of the packages that the pixels depend on, read from their metadata without importing them."""
    return {"ltx_dist": __version__} | {name: version(name) for name in ("torch", "diffusers", "transformers", "av")}
