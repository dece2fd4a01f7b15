"""The second pass: the upsampler doubles height and width of the latents, and they are denoised again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import diffusers
import torch

from ltx_dist.models.ltx2.denoise import Denoiser, Start
from ltx_dist.models.pipelines import partial_pipeline
from ltx_dist.pipeline.payloads import ConditionLatents, SoundLatents
from ltx_dist.pipeline.sound import SoundSecondPass

if TYPE_CHECKING:
    from ltx_dist.checkpoints.checkpoint import Checkpoint
    from ltx_dist.models.family import StageContext
    from ltx_dist.pipeline.request import RenderRequest


class Refine:
    """The latent upsampler and the transformer. The upsampler's norms span the whole clip, so it is never cut."""

    def __init__(
        self, components: Mapping[str, Any], checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._device = device
        self._upsampler = components["latent_upsampler"]
        self._denoiser = Denoiser(components["transformer"], checkpoint, device, dtype)

    def run(
        self, requests: Sequence[RenderRequest], inputs: Sequence[Mapping[str, Any]], context: StageContext
    ) -> list[SoundLatents]:
        """Latents of each request on the CPU, one clip after another."""
        return [self._run(request, given, context) for request, given in zip(requests, inputs, strict=True)]

    def _run(self, request: RenderRequest, given: Mapping[str, Any], context: StageContext) -> SoundLatents:
        first: SoundLatents = given["denoise"]
        images: ConditionLatents | None = given.get("encode_image")
        second = request.second_pass
        assert isinstance(second, SoundSecondPass)
        generator = torch.Generator("cpu")
        generator.set_state(first.generator_state)
        refined = self._denoiser.denoise(
            request,
            1,
            given["encode_text"],
            () if images is None else images.second,
            generator,
            context.on_step,
            Start(self._upsampled(request, second, first), first.audio_latents.to(self._device)),
        )
        return refined if second.audio == "second" else replace(refined, audio_latents=first.audio_latents)

    def _upsampled(self, request: RenderRequest, second: SoundSecondPass, first: SoundLatents) -> torch.Tensor:
        """(1, C, F, H, W) in the upsampler's dtype, not normalised."""
        pipeline = partial_pipeline(
            diffusers.LTX2LatentUpsamplePipeline, vae=self._denoiser.vae, latent_upsampler=self._upsampler
        )
        return pipeline(
            latents=first.latents.to(self._device),
            latents_normalized=True,
            height=second.first_height,
            width=second.first_width,
            num_frames=request.num_frames,
            adain_factor=second.adain_factor,
            tone_map_compression_ratio=second.tone_map_compression_ratio,
            output_type="latent",
            return_dict=False,
        )[0]
