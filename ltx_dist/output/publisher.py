"""Publishing into the output folder: `NAME.mp4`, and beside it `NAME.json` (the sidecar), the mp4 always first.

A sidecar that says "done" therefore has its mp4. One Publisher writes to a folder at a time; workers never do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ltx_dist import __version__
from ltx_dist.output.files import to_json, write_atomically
from ltx_dist.output.video import check_video
from ltx_dist.types import Completion, EncodedVideo, RenderRequest, RenderResult

RESERVED_NAMES = frozenset({"run", "trace", "index"})
"""Names of files of ours; prompts are refused before they get here."""


class Publisher:
    """The one writer of an output folder.

    checkpoint: what the sidecars say of it, as JSON: its name and digests.
    Makes the folder, and clears what a crash left in `.ltx-dist/tmp`. Every method may raise OSError.
    """

    def __init__(self, folder: Path, checkpoint: Mapping[str, Any]) -> None:
        self._folder = folder
        self._checkpoint = dict(checkpoint)
        self._scratch = folder / ".ltx-dist" / "tmp"
        self._scratch.mkdir(parents=True, exist_ok=True)
        for leftover in self._scratch.iterdir():
            leftover.unlink()

    def publish(self, result: RenderResult, render_key: str) -> None:
        """Make `result` visible and durable: the mp4 and its sidecar, or for a failed one the sidecar alone.

        Raises ValueError, with nothing written, when the mp4 is not the video that was asked for.
        """
        request, video = result.request, result.video
        assert (result.status == "done") == (video is not None), result.status
        if video is not None:
            _check(request, video)
            self._write(f"{request.request_id}.mp4", video.mp4)
        self._write(f"{request.request_id}.json", to_json(_sidecar(result, render_key, self._checkpoint)))

    def is_published(self, name: str, render_key: str) -> bool:
        """Whether the clip was made by exactly this `render_key` and its mp4 is still the one its sidecar names."""
        try:
            sidecar = json.loads((self._folder / f"{name}.json").read_bytes())
            if not isinstance(sidecar, dict) or (sidecar.get("status"), sidecar.get("render_key")) != (
                "done",
                render_key,
            ):
                return False  # before the mp4 is read: a batch of other settings need not be hashed
            mp4 = (self._folder / f"{name}.mp4").read_bytes()
        except (FileNotFoundError, ValueError):  # ValueError: a foreign or damaged sidecar; the clip is made anew
            return False
        return sidecar.get("mp4_sha256") == hashlib.sha256(mp4).hexdigest()

    def _write(self, name: str, data: bytes) -> None:
        assert Path(name).name == name and Path(name).stem not in RESERVED_NAMES, name
        write_atomically(self._folder / name, data, self._scratch)


def _check(request: RenderRequest, video: EncodedVideo) -> None:
    if hashlib.sha256(video.mp4).hexdigest() != video.mp4_sha256:
        raise ValueError("the mp4 was damaged on its way from the worker")
    check_video(video.mp4, request.num_frames, request.height, request.width, request.frame_rate)


def _sidecar(result: RenderResult, render_key: str, checkpoint: dict[str, Any]) -> dict[str, Any]:
    sidecar: dict[str, Any] = {
        "status": result.status,
        "request": asdict(result.request),
        "render_key": render_key,
        "checkpoint": checkpoint,
        "versions": _versions(),
        "stages": {str(c.assignment.stage): _stage(c) for c in result.completions},  # of a retried stage the last
    }
    if (video := result.video) is None:
        return sidecar | {"error": result.error}
    digests = {"frames_sha256": video.frames_sha256, "mp4_sha256": video.mp4_sha256, "num_frames": video.num_frames}
    digests["mp4_bytes"] = len(video.mp4)
    return sidecar | digests | {"latents_sha256": _latents_sha256(result)}


def _stage(completion: Completion) -> dict[str, Any]:
    report = completion.report
    return {
        "worker": completion.assignment.worker_id,
        "seconds": report.seconds,
        "load_seconds": report.load_seconds,
        "peak_bytes": report.peak_bytes,
    }


def _latents_sha256(result: RenderResult) -> str | None:
    """Of the last denoising that ended well: its latents are the ones decoded."""
    digests = [c.report.latents_sha256 for c in result.completions if c.report.latents_sha256]
    return digests[-1] if digests else None


@cache
def _versions() -> dict[str, str]:
    """Of what makes the pixels; read from the installed packages' metadata, so nothing is imported for it."""
    return {"ltx_dist": __version__} | {name: version(name) for name in ("torch", "diffusers", "transformers", "av")}
