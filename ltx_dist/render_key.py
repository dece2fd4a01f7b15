"""What a clip is made of, as one digest: equal keys mean equal pixels and equal mp4 bytes, so a clip can be reused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields

from ltx_dist.config import OutputConfig
from ltx_dist.types import RenderRequest, Stage

KEY_VERSION = 1
"""Raise it when a change of this package gives other pixels or other mp4 bytes for the same settings."""


def render_key(
    request: RenderRequest,
    checkpoint_digest: Mapping[str, str],
    pipeline_class: str,
    precision: str,
    output: OutputConfig,
) -> str:
    """sha256 hex of everything that decides the clip and of nothing else: not its name, layout, workers or order.

    precision: the dtype of the weights as resolved, never `auto`. Libraries and devices, whose low bits differ, are
    the caller's to record beside the key.
    """
    document = {
        "key_version": KEY_VERSION,
        "request": _settings(request),
        "checkpoint": dict(checkpoint_digest),
        "pipeline_class": pipeline_class,
        "precision": precision,
        "output": output.model_dump(mode="json"),
    }
    return _sha256(document)


STAGE_FIELDS: dict[Stage, tuple[str, ...]] = {
    Stage.ENCODE_TEXT: ("prompt", "negative_prompt", "max_sequence_length"),
    Stage.DENOISE: (
        "prompt", "negative_prompt", "max_sequence_length", "height", "width", "num_frames", "frame_rate",
        "num_inference_steps", "guidance_scale", "guidance_rescale", "seed",
    ),
}  # fmt: skip
"""The settings that decide what a stage hands on. Those of decoding are in neither, so latents outlive them."""


def stage_key(
    stage: Stage, request: RenderRequest, checkpoint_digest: Mapping[str, str], pipeline_class: str, precision: str
) -> str:
    """sha256 hex of everything that decides the output of a stage before the last."""
    settings = _settings(request)
    document = {
        "key_version": KEY_VERSION,
        "stage": stage.value,
        "request": {name: settings[name] for name in STAGE_FIELDS[stage]},
        "guided": request.do_classifier_free_guidance,
        "checkpoint": dict(checkpoint_digest),
        "pipeline_class": pipeline_class,
        "precision": precision,
    }
    return _sha256(document)


def _sha256(document: dict[str, object]) -> str:
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _settings(request: RenderRequest) -> dict[str, object]:
    """The request without its name; 25 and 25.0 frames a second are one setting."""
    settings = asdict(request)
    del settings["request_id"]
    for field in fields(request):
        value = settings.get(field.name)
        if str(field.type).startswith("float") and value is not None:
            settings[field.name] = float(value)
    return settings
