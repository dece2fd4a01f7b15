"""Decodes latents to frames, with casts and random draws in the order of diffusers' LTX pipelines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor
from diffusers.video_processor import VideoProcessor

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.models.family import StageContext
from ltx_dist.models.frames import frames_of
from ltx_dist.models.ltx_video.tiling import decode_in_tiles
from ltx_dist.pipeline.conditions import SecondPass
from ltx_dist.pipeline.payloads import DecodedClip, Latents
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import DecodeTiling
from ltx_dist.weights.loading import DTYPES, pipeline_class


class Decode:
    """The VAE's decoder and diffusers' own post-processing."""

    def __init__(
        self, components: Mapping[str, Any], checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._vae = components["vae"]
        self._device = device
        pipeline: Any = pipeline_class(checkpoint)
        self._denormalize = pipeline._denormalize_latents
        self._processor = VideoProcessor(vae_scale_factor=checkpoint.spatial_compression_ratio)

    def run(
        self, requests: Sequence[RenderRequest], inputs: Sequence[Mapping[str, Any]], context: StageContext
    ) -> list[DecodedClip]:
        """One decoded clip per request; its frames are decoded as they are consumed."""
        latents: list[Latents] = [given.get("refine") or given["denoise"] for given in inputs]
        return [
            DecodedClip(self._frames(request, one, context.tiling), one.sha256())
            for request, one in zip(requests, latents, strict=True)
        ]

    def _frames(self, request: RenderRequest, latents: Latents, tiling: DecodeTiling) -> Iterator[np.ndarray]:
        """The clip's frames, (height, width, 3) uint8 RGB, decoded and rounded on the device piece by piece.
        Raises FloatingPointError for pixels that are not finite.

        As in diffusers, latents are cast to the text embeddings' dtype, the decode noise is drawn in that dtype, as the
        next draw of the generator that made the initial noise, and the result is cast to the VAE's dtype.
        """
        vae = self._vae
        samples = latents.latents.to(self._device)
        samples = self._denormalize(samples, vae.latents_mean, vae.latents_std, vae.config.scaling_factor)
        samples = samples.to(DTYPES[latents.embeds_dtype])
        timestep = None
        if vae.config.timestep_conditioning:
            samples, timestep = self._add_decode_noise(request, latents, samples)
        samples = self._tone_mapped(request, samples)
        # The VAE of 0.9.1 draws noise from the global generator inside its decoder.
        torch.manual_seed(request.seed)
        for piece in decode_in_tiles(vae, samples.to(vae.dtype), timestep, tiling):
            yield from frames_of(piece, self._processor, (request.height, request.width))

    def _add_decode_noise(
        self, request: RenderRequest, latents: Latents, samples: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator("cpu")
        generator.set_state(latents.generator_state)
        noise = randn_tensor(samples.shape, generator=generator, device=self._device, dtype=samples.dtype)
        noise_scale = request.decode_noise_scale
        scale = torch.tensor(
            [request.decode_timestep if noise_scale is None else noise_scale], device=self._device, dtype=samples.dtype
        )[:, None, None, None, None]
        timestep = torch.tensor([request.decode_timestep], device=self._device, dtype=samples.dtype)
        return (1 - scale) * samples + scale * noise, timestep

    def _tone_mapped(self, request: RenderRequest, samples: torch.Tensor) -> torch.Tensor:
        """The latents with highlights compressed, if the second pass asks for it; done where LTXMultiScalePipeline of
        github.com/Lightricks/LTX-Video does it: on normalised latents, after the decode noise."""
        two, vae = request.second_pass, self._vae
        if not isinstance(two, SecondPass) or two.tone_map_at != "decode" or not two.tone_map_compression_ratio:
            return samples
        statistics = vae.latents_mean, vae.latents_std, vae.config.scaling_factor
        pipeline: Any = diffusers.LTXLatentUpsamplePipeline
        normalized = pipeline._normalize_latents(samples, *statistics)
        mapped = pipeline.tone_map_latents(None, normalized, two.tone_map_compression_ratio)
        return pipeline._denormalize_latents(mapped, *statistics)
