"""Encodes images and videos to the moments of the VAE's posterior."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import PIL.Image
import torch
from diffusers.video_processor import VideoProcessor

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.media.images import open_image
from ltx_dist.media.preprocess import fitted, official_pixels
from ltx_dist.media.sources import open_media
from ltx_dist.media.video_in import read_frames
from ltx_dist.models.family import StageContext
from ltx_dist.pipeline.conditions import Condition
from ltx_dist.pipeline.payloads import EncodedMedia
from ltx_dist.pipeline.request import RenderRequest

REMEMBERED = 32
"""Number of encodings kept in host memory, at most some 4 MB each: many clips may begin with the same image."""


class EncodeImage:
    """Encodes each medium at the size of each pass that it conditions; never in tiles, which change the latents."""

    def __init__(
        self, components: Mapping[str, Any], checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._vae = components["vae_encoder"]
        self._device = device
        self._processor = VideoProcessor(vae_scale_factor=checkpoint.spatial_compression_ratio)
        self._remembered: OrderedDict[tuple[Any, ...], torch.Tensor] = OrderedDict()

    def run(
        self, requests: Sequence[RenderRequest], inputs: Sequence[Mapping[str, Any]], context: StageContext
    ) -> list[EncodedMedia]:
        """Moments of each request's media, on the CPU. Raises ValueError if a file has changed or is gone."""
        return [self._encode_all(request) for request in requests]

    def _encode_all(self, request: RenderRequest) -> EncodedMedia:
        two = request.second_pass
        return EncodedMedia(
            seen=tuple(self._moments(medium, *request.first_size) for medium in request.seen),
            refined=tuple(self._moments(medium, two.height, two.width) for medium in request.seen) if two else (),
            video=self._moments(request.video, *request.first_size) if request.video else None,
            latents_mean=self._vae.latents_mean.cpu(),
            latents_std=self._vae.latents_std.cpu(),
        )

    def _moments(self, medium: Condition, height: int, width: int) -> torch.Tensor:
        """(1, C + 1, F, H, W) in the VAE's dtype: the last C of the encoder's 2 C channels are equal."""
        key = (
            medium.sha256, medium.is_video, medium.start_frame, medium.num_frames, medium.fit, medium.preprocess,
            medium.crf, medium.blur, height, width,
        )  # fmt: skip
        if key not in self._remembered:
            parameters = self._vae.encode(self._pixels(medium, height, width)).latent_dist.parameters
            self._remembered[key] = parameters[:, : parameters.shape[1] // 2 + 1].cpu().clone()
        self._remembered.move_to_end(key)
        while len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)
        return self._remembered[key]

    def _pixels(self, medium: Condition, height: int, width: int) -> torch.Tensor:
        """(1, 3, F, height, width) in the VAE's dtype, on the device, where only one frame at a time is in float32."""
        pixels = torch.empty(1, 3, medium.num_frames, height, width, dtype=self._vae.dtype)
        for index, picture in enumerate(_pictures(medium)):
            shown = fitted(picture, height, width, medium.fit)
            if medium.preprocess == "official":
                pixels[0, :, index] = official_pixels(shown, height, width, medium.crf, medium.blur)
            else:
                pixels[0, :, index] = self._processor.preprocess(shown, height, width)[0]
        return pixels.to(self._device)


def _pictures(medium: Condition) -> Iterator[PIL.Image.Image]:
    file = open_media(medium.place, medium.sha256)
    if medium.is_video:
        yield from read_frames(file.path, medium.start_frame, medium.num_frames, medium.place)
    else:
        yield open_image(file.path, medium.place)
