"""The second pass: upsamples latents to twice the size, then denoises them again with the same transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import diffusers
import torch

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.models.family import StageContext
from ltx_dist.models.ltx_video.denoising import Denoising, second_pass
from ltx_dist.models.ltx_video.stand_ins import EncodedVae
from ltx_dist.models.pipelines import partial_pipeline
from ltx_dist.pipeline.payloads import EncodedMedia, Latents
from ltx_dist.pipeline.request import RenderRequest, SecondPass
from ltx_dist.weights.loading import load_noise_scheduler, pipeline_class


class Refine:
    """Runs diffusers' LTXLatentUpsamplePipeline, and then its LTXConditionPipeline with `latents`.

    Never in tiles and never several clips at once: the upsampler normalises over all frames and pixels of a clip.
    """

    def __init__(
        self, components: Mapping[str, Any], checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._upsampler = components["latent_upsampler"]
        self._denoising = Denoising(
            components["transformer"], diffusers.LTXConditionPipeline, _noise_scheduler(checkpoint), device, dtype
        )
        self._checkpoint = checkpoint
        self._device = device

    def run(
        self, requests: Sequence[RenderRequest], inputs: Sequence[Mapping[str, Any]], context: StageContext
    ) -> list[Latents]:
        """The refined latents of each request, on the CPU; its generator continues where the first pass left it."""
        return [self._refine(request, given, context) for request, given in zip(requests, inputs, strict=True)]

    def _refine(self, request: RenderRequest, given: Mapping[str, Any], context: StageContext) -> Latents:
        first: Latents = given["denoise"]
        media: EncodedMedia | None = given.get("encode_image")
        vae = EncodedVae(
            self._checkpoint,
            self._device,
            self._upsampler.latents_mean,
            self._upsampler.latents_std,
            self._upsampler.scaling_factor,
        )
        vae.expect(media.refined if media else ())
        generator = torch.Generator("cpu")
        generator.set_state(first.generator_state)
        latents = self._denoising.run(
            [request],
            second_pass(request),
            [given["encode_text"]],
            [generator],
            context.on_step,
            vae,
            self._upsampled(request, first.latents.to(self._device), vae),
        )
        return Latents(latents, generator.get_state(), first.embeds_dtype)

    def _upsampled(self, request: RenderRequest, latents: torch.Tensor, vae: EncodedVae) -> torch.Tensor:
        """The latents at twice the size, (1, C, F, 2 H, 2 W), normalised, in the upsampler's dtype."""
        two = request.second_pass
        assert isinstance(two, SecondPass), request.request_id
        pipeline = partial_pipeline(diffusers.LTXLatentUpsamplePipeline, vae=vae, latent_upsampler=self._upsampler)
        between = two.tone_map_compression_ratio if two.tone_map_at == "upsample" else 0.0
        (upsampled,) = pipeline(
            latents=latents,
            height=two.height,
            width=two.width,
            adain_factor=two.adain_factor,
            tone_map_compression_ratio=between,
            output_type="latent",
            return_dict=False,
        )
        return upsampled


def _noise_scheduler(checkpoint: Checkpoint) -> diffusers.FlowMatchEulerDiscreteScheduler:
    """The noise scheduler of the second pass: the checkpoint's, but without a shift if the first pass is LTXPipeline's.

    Given timesteps, diffusers 0.42 applies the shift to the sigmas, but the transformer gets the timesteps unshifted.
    """
    scheduler = load_noise_scheduler(checkpoint)
    if pipeline_class(checkpoint) is diffusers.LTXConditionPipeline:
        return scheduler
    unshifted: Any = diffusers.FlowMatchEulerDiscreteScheduler.from_config(scheduler.config, shift=1.0)
    return unshifted
