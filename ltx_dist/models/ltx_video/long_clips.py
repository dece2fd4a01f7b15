"""Denoises long clips in windows, by diffusers' own pipeline for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import torch

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.models.finite import check_finite
from ltx_dist.models.ltx_video.stand_ins import NoPixels
from ltx_dist.models.pipelines import partial_pipeline
from ltx_dist.pipeline.payloads import Conditioning
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.weights.loading import load_noise_scheduler
from ltx_dist.weights.lora import use_loras


class EncodedPipeline(diffusers.LTXI2VLongMultiPromptPipeline):
    """diffusers' pipeline for long clips, fed with prompts that are already encoded, which its `__call__` cannot take.

    embeds: what `encode_prompt` returns for each prompt, with the pair of the negative prompt.
    """

    embeds: dict[str, tuple[torch.Tensor | None, ...]]

    def encode_prompt(self, prompt: list[str], **_: Any) -> tuple[torch.Tensor | None, ...]:
        return self.embeds[prompt[0]]


class LongDenoising:
    """Runs LTXI2VLongMultiPromptPipeline with the ancestral noise scheduler that it was made for."""

    def __init__(self, transformer: Any, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        self._transformer, self._device, self._dtype = transformer, device, dtype
        self._scheduler_config = load_noise_scheduler(checkpoint).config

    def run(
        self,
        request: RenderRequest,
        text: Conditioning,
        generator: torch.Generator,
        on_step: Callable[[int], None],
        vae: Any,
    ) -> torch.Tensor:
        """(1, C, F, H, W) float32 on the CPU, normalised. Raises FloatingPointError if they are not finite.

        text: one row for each distinct prompt of the windows. generator: draws all noise, window by window.
        vae: a stand-in that returns the posterior of the first frame's image, if the request has one.
        """
        windows = request.windows
        assert windows is not None and request.timesteps is not None, request.request_id
        use_loras(self._transformer, request.loras)
        pipeline = partial_pipeline(
            EncodedPipeline,
            scheduler=diffusers.LTXEulerAncestralRFScheduler.from_config(self._scheduler_config),
            vae=vae,
            transformer=self._transformer,
        )
        pipeline.video_processor = NoPixels()
        pipeline.embeds = self._embeds(windows.distinct_prompts, text)
        steps = 0

        def report_step(_: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            nonlocal steps
            steps += 1
            on_step(steps)
            return {}

        first = request.conditions[0] if request.conditions else None
        (latents,) = pipeline(
            prompt=list(windows.prompts),
            height=request.height,
            width=request.width,
            num_frames=request.num_frames,
            frame_rate=request.frame_rate,
            guidance_scale=request.guidance_scale,
            guidance_rescale=request.guidance_rescale,
            # The pipeline skips the last timestep, so with a 0 at the end all of ours run.
            sigmas=[*(timestep / 1000 for timestep in request.timesteps), 0.0],
            generator=generator,
            seed=None,  # with a seed, each window would draw from its own generator on the device instead of this one
            cond_image="" if first else None,
            cond_strength=first.strength if first else 0.0,
            temporal_tile_size=windows.temporal_tile_size,
            temporal_overlap=windows.temporal_overlap,
            temporal_overlap_cond_strength=windows.temporal_overlap_cond_strength,
            adain_factor=windows.adain_factor,
            output_type="latent",
            return_dict=False,
            callback_on_step_end=report_step,
            callback_on_step_end_tensor_inputs=[],
        )
        latents = latents.float().cpu()
        check_finite(latents, "the latents are", self._dtype, "model.precision")
        return latents

    def _embeds(self, prompts: tuple[str, ...], text: Conditioning) -> dict[str, tuple[torch.Tensor | None, ...]]:
        """The embeddings on the device, by prompt, for EncodedPipeline."""
        embeds, mask = text.prompt_embeds.to(self._device), text.prompt_attention_mask.to(self._device)
        pair = (text.negative_prompt_embeds, text.negative_prompt_attention_mask)
        negative = [one if one is None else one.to(self._device) for one in pair]
        return {prompt: (embeds[row : row + 1], mask[row : row + 1], *negative) for row, prompt in enumerate(prompts)}
