"""Denoises: the first pass of the transformer, from conditioning to latents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import diffusers
import torch

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.models.family import StageContext
from ltx_dist.models.ltx_video.denoising import Denoising, first_pass
from ltx_dist.models.ltx_video.long_clips import LongDenoising
from ltx_dist.models.ltx_video.stand_ins import EncodedVae, VaeGeometry
from ltx_dist.models.pipelines import partial_pipeline
from ltx_dist.pipeline.payloads import EncodedMedia, Latents
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.weights.loading import load_noise_scheduler, pipeline_class


class Denoise:
    """The checkpoint's own diffusers pipeline with `output_type="latent"`."""

    def __init__(
        self, components: Mapping[str, Any], checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._denoising = Denoising(
            components["transformer"], pipeline_class(checkpoint), load_noise_scheduler(checkpoint), device, dtype
        )
        self._long = LongDenoising(components["transformer"], checkpoint, device, dtype)
        self._checkpoint = checkpoint
        self._device = device
        self._geometry = VaeGeometry(checkpoint.spatial_compression_ratio, checkpoint.temporal_compression_ratio, dtype)

    def run(
        self, requests: Sequence[RenderRequest], inputs: Sequence[Mapping[str, Any]], context: StageContext
    ) -> list[Latents]:
        """Latents of each request on the CPU.

        All requests share the forward passes; they differ in prompts and seeds, but no other input of the transformer.
        Each has its own CPU generator, so the noise depends neither on the device nor on other clips. Results of shared
        passes differ in the low bits from those of single requests, because kernels choose their block sizes by the
        shape. A request with media or windows never shares a pass.
        """
        request, texts = requests[0], [given["encode_text"] for given in inputs]
        generators = [torch.Generator("cpu").manual_seed(request.seed) for request in requests]
        media: EncodedMedia | None = inputs[0].get("encode_image")
        vae: Any = self._geometry
        latents = None
        if media is not None:
            vae = EncodedVae(self._checkpoint, self._device, media.latents_mean, media.latents_std)
            if media.video is not None:
                latents = self._sample(vae, media.video, generators[0])
            vae.expect(media.seen)
        if request.windows:
            denoised = self._long.run(request, texts[0], generators[0], context.on_step, vae)
        else:
            settings = first_pass(request)
            denoised = self._denoising.run(requests, settings, texts, generators, context.on_step, vae, latents)
        return [
            Latents(
                # A copy, because a view would keep the latents of all requests in memory, and be sent with them.
                latents=one.clone(memory_format=torch.contiguous_format),
                generator_state=generator.get_state(),
                embeds_dtype=str(text.prompt_embeds.dtype).removeprefix("torch."),
            )
            for one, generator, text in zip(denoised.split(1), generators, texts, strict=True)
        ]

    def _sample(self, vae: EncodedVae, moments: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """(1, C, F, H, W) float32, normalised: the first draw of the clip's generator.

        No pipeline of diffusers encodes a video to the `latents` that LTXConditionPipeline starts from;
        LTXLatentUpsamplePipeline, which takes a video, encodes it to latents of this kind.
        """
        vae.expect([moments])
        pipeline = partial_pipeline(diffusers.LTXLatentUpsamplePipeline, vae=vae)
        return pipeline.prepare_latents(
            torch.empty(1, 1, 1, 1, 1), dtype=torch.float32, device=self._device, generator=generator
        )
