"""Encodes the images and videos of a clip's conditions to latents, with diffusers' preprocessing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import diffusers
import numpy as np
import PIL.Image
import torch
from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition
from diffusers.pipelines.ltx2.utils import apply_image_conditioning_crf

from ltx_dist.media.images import open_image
from ltx_dist.media.preprocess import fitted
from ltx_dist.media.sources import open_media
from ltx_dist.media.video_in import read_frames
from ltx_dist.models.ltx2.denoise import is_first_frame
from ltx_dist.models.pipelines import partial_pipeline
from ltx_dist.pipeline.payloads import ConditionLatents

if TYPE_CHECKING:
    from ltx_dist.checkpoints.checkpoint import Checkpoint
    from ltx_dist.models.family import StageContext
    from ltx_dist.pipeline.conditions import Condition
    from ltx_dist.pipeline.request import RenderRequest

Size = tuple[int, int]
"""Height and width of a pass, in pixels."""


class EncodeImage:
    """The VAE's encoder. It draws no noise: it takes the mean of each posterior."""

    def __init__(
        self, components: Mapping[str, Any], checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._vae = components["vae_encoder"]
        self._device = device
        self._dtype = dtype
        # Each of the two pipelines preprocesses images itself, in its own way.
        self._first_frame = partial_pipeline(diffusers.LTX2ImageToVideoPipeline, vae=self._vae)
        self._condition = partial_pipeline(diffusers.LTX2ConditionPipeline, vae=self._vae)

    def run(
        self, requests: Sequence[RenderRequest], inputs: Sequence[Mapping[str, Any]], context: StageContext
    ) -> list[ConditionLatents]:
        """Latents of each clip's conditions on the CPU, for each of its passes."""
        return [self._run(request) for request in requests]

    def _run(self, request: RenderRequest) -> ConditionLatents:
        first, two = request.first_size, request.second_pass
        pictures = [_pictures(one) for one in request.conditions]
        if is_first_frame(request):
            # The second pass starts from latents that already hold the first frame.
            return ConditionLatents((self._encoded_first_frame(request.conditions[0], pictures[0][0], first),), ())
        at_first = self._encoded(request, pictures, first)
        return ConditionLatents(at_first, self._encoded(request, pictures, (two.height, two.width)) if two else ())

    def _encoded_first_frame(self, condition: Condition, picture: PIL.Image.Image, size: Size) -> torch.Tensor:
        """The latents of the image, prepared as by `LTX2ImageToVideoPipeline`: compressed, then scaled in 8 bits."""
        compressed = _compressed(fitted(picture, *size, condition.fit), condition.crf)
        pixels = self._first_frame.video_processor.preprocess(compressed, *size)
        return self._means(pixels.to(self._device, self._dtype).unsqueeze(2))

    def _encoded(
        self, request: RenderRequest, pictures: list[list[PIL.Image.Image]], size: Size
    ) -> tuple[torch.Tensor, ...]:
        """The latents of each condition, prepared as by `LTX2ConditionPipeline`: compressed, scaled in float32, and
        cropped to the centre."""
        given = [
            LTX2VideoCondition(frames=[_shaped(frame, condition, size) for frame in frames], index=0, crf=condition.crf)
            for condition, frames in zip(request.conditions, pictures, strict=True)
        ]
        frames, *_ = self._condition.preprocess_conditions(given, *size, request.num_frames, device=self._device)
        return tuple(self._means(pixels) for pixels in frames)

    def _means(self, pixels: torch.Tensor) -> torch.Tensor:
        """(1, 3, F, H, W) -> the posterior's mean, (1, C, f, H/32, W/32): `retrieve_latents` with "argmax"."""
        return self._vae.encode(pixels).latent_dist.mode().cpu()


def _pictures(condition: Condition) -> list[PIL.Image.Image]:
    """The frames of a condition, at their own size."""
    path = open_media(condition.place, condition.sha256).path
    if not condition.is_video:
        return [open_image(path, condition.place)]
    return list(read_frames(path, condition.start_frame, condition.num_frames, condition.place))


def _shaped(picture: PIL.Image.Image, condition: Condition, size: Size) -> PIL.Image.Image:
    """The frame in the clip's aspect ratio, unless the pipeline crops it itself at the end."""
    height, width = size
    if condition.fit == "stretch":
        return picture.resize((width, height), PIL.Image.Resampling.LANCZOS)
    return picture if condition.fit == "crop" else fitted(picture, height, width, condition.fit)


def _compressed(picture: PIL.Image.Image, crf: int) -> PIL.Image.Image:
    return PIL.Image.fromarray(apply_image_conditioning_crf(np.array(picture), crf)) if crf else picture
