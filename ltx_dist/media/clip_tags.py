"""The tags of a clip's mp4, which show in other programs how it was made: title, comment and parameters."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import PurePath
from typing import Any

from ltx_dist.pipeline.request import RenderRequest


def clip_tags(request: RenderRequest, model: str, render_key: str) -> dict[str, str]:
    """title: the prompt. comment: one flat JSON object of all settings. parameters: as AUTOMATIC1111 writes them.

    There is none called `prompt`: ComfyUI's readers expect a graph of nodes in it.
    model: a checkpoint's name; of a path only its last part is told.
    """
    name = PurePath(model).name.partition("@")[0].removesuffix(".safetensors")
    told = {"name": request.request_id, "model": name, "render_key": render_key} | _settings(request)
    comment = json.dumps(told, ensure_ascii=False, sort_keys=True, allow_nan=False)
    return {"title": request.prompt, "comment": comment, "parameters": _parameters(request, name)}


def _settings(request: RenderRequest) -> dict[str, Any]:
    """Of those that a clip need not have, such as conditions, only what this one has."""
    return {
        field.name: _as_json(getattr(request, field.name))
        for field in fields(request)
        if field.name != "request_id" and (field.default is MISSING or getattr(request, field.name) != field.default)
    }


def _as_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_as_json(one) for one in value]
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _parameters(request: RenderRequest, model: str) -> str:
    """Prompt, negative prompt and a line of settings, under the names that AUTOMATIC1111 has for them."""
    settings = {
        "Steps": request.num_inference_steps,
        "CFG scale": f"{request.guidance_scale:g}",
        "Seed": request.seed,
        "Size": f"{request.width}x{request.height}",
        "Model": model,
        "Frames": request.num_frames,
        "FPS": f"{request.frame_rate:g}",
    }
    lines = [request.prompt, *([f"Negative prompt: {request.negative_prompt}"] if request.negative_prompt else [])]
    return "\n".join([*lines, ", ".join(f"{name}: {value}" for name, value in settings.items())])
