"""An output folder with small clips in it, published as a run publishes them, without a model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from ltx_dist.media.mp4 import encode_video
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import Mp4Settings
from ltx_dist.pipeline.work import Assignment, Completion, RenderResult, StageReport
from ltx_dist.store.publisher import Publisher

SIZE, NUM_FRAMES = (32, 48), 5
REQUEST = RenderRequest("", "a lighthouse", "", *SIZE, NUM_FRAMES, 8.0, 2, 1.0, 0.0, 1, 0.0, None, 32)


def publish(folder: Path, name: str, error: str | None = None, meta: object = None, **settings: object) -> None:
    """Publish one clip, or a failed one if there is an `error`. Its frames get brighter, from black to white."""
    request = replace(REQUEST, request_id=name, **settings)  # type: ignore[arg-type]
    frames = [np.full((*SIZE, 3), level, np.uint8) for level in np.linspace(0, 255, NUM_FRAMES)]
    video = encode_video(
        frames, height=SIZE[0], width=SIZE[1], num_frames=NUM_FRAMES, frame_rate=8.0, output=Mp4Settings(),
        metadata={}, facts={"render_key": f"key of {name}"},
    )  # fmt: skip
    work = (Completion(Assignment((name,), "denoise", "gpu:0"), 0.0, 1.5, StageReport(1.5)),)
    result = RenderResult(request, "failed", work, error=error) if error else RenderResult(request, "done", work, video)
    notes = {name: {} if meta is None else {"meta": meta}}
    Publisher(folder, {"name": "demo", "sha256": {"vae": "12ab"}}, notes=notes).publish(result, f"key of {name}")


def change_sidecar(folder: Path, name: str, **changes: object) -> None:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
