"""What a clip is made of, as one digest: equal keys mean equal pixels and equal mp4 bytes, so a clip can be reused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields

from ltx_dist.config import OutputConfig
from ltx_dist.types import RenderRequest

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
