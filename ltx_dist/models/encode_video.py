"""Encodes frames as mp4 on the host, for every family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.media.clip_tags import clip_tags
from ltx_dist.media.mp4 import encode_video
from ltx_dist.models.family import StageContext
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
        """An mp4 per request. It names its request and key, and its seal the latents it was made from."""
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
