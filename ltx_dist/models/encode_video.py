"""Encodes frames as mp4 on the host, for every family, with tags that show how the clip was made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.media.mp4 import encode_video
from ltx_dist.models.family import StageContext
from ltx_dist.pipeline.conditions import Condition, Lora
from ltx_dist.pipeline.keys import KEY_VERSION
from ltx_dist.pipeline.payloads import DecodedClip, EncodedVideo
from ltx_dist.pipeline.request import RenderRequest

if TYPE_CHECKING:
    import torch


class EncodeVideo:
    """x264 through PyAV; needs no weights."""

    def __init__(
        self, components: Mapping[str, Any], checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._model = checkpoint.name

    def run(
        self, requests: Sequence[RenderRequest], inputs: Sequence[Mapping[str, Any]], context: StageContext
    ) -> list[EncodedVideo]:
        """One mp4 per request, tagged with the request and its key, and sealed with the hash of its latents."""
        (source,) = context.stage.inputs
        return [self._encode(request, given[source], context) for request, given in zip(requests, inputs, strict=True)]

    def _encode(self, request: RenderRequest, clip: DecodedClip, context: StageContext) -> EncodedVideo:
        key = context.render_key(request)
        return encode_video(
            clip.frames,
            height=request.height,
            width=request.width,
            num_frames=request.num_frames,
            frame_rate=request.frame_rate,
            output=context.mp4,
            metadata=clip_tags(request, self._model, key),
            facts={"render_key": key, "key_version": str(KEY_VERSION), "latents_sha256": clip.latents_sha256},
            sound=clip.sound,
        )


def clip_tags(request: RenderRequest, model: str, render_key: str) -> dict[str, str]:
    """title: the prompt. comment: one flat JSON object of all settings. parameters: as AUTOMATIC1111 writes them.

    No tag is called `prompt`: ComfyUI's readers expect a graph of nodes in it.
    model: a checkpoint's name. Of the paths of models and media, only the last part is written.
    """
    name = PurePath(model).name.partition("@")[0].removesuffix(".safetensors")
    told = {"name": request.request_id, "model": name, "render_key": render_key} | _settings(request)
    comment = json.dumps(told, ensure_ascii=False, sort_keys=True, allow_nan=False)
    return {"title": request.prompt, "comment": comment, "parameters": _parameters(request, name)}


def _settings(request: RenderRequest) -> dict[str, Any]:
    """Settings for the tags; optional ones, such as conditions, only if this clip has them."""
    return {
        field.name: _as_json(getattr(request, field.name))
        for field in fields(request)
        if field.name != "request_id" and (field.default is MISSING or getattr(request, field.name) != field.default)
    }


def _as_json(value: Any) -> Any:
    """The value as JSON; of the place of a file, only its name."""
    if isinstance(value, tuple):
        return [_as_json(one) for one in value]
    if not is_dataclass(value) or isinstance(value, type):
        return value
    settings = {field.name: _as_json(getattr(value, field.name)) for field in fields(value)}
    return settings | ({"place": _file_name(value.place)} if isinstance(value, Condition | Lora) else {})


def _file_name(place: str) -> str:
    """The last part of a path or URL: others need not know folders, servers and what a URL has after its path."""
    return PurePath(urlsplit(place).path if "://" in place else place).name


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
