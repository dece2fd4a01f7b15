"""One denoising pass of the transformer, by diffusers' own pipelines; shared by `denoise` and `refine`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import diffusers
import torch

from ltx_dist.models.finite import check_finite
from ltx_dist.models.ltx_video.in_context import InContextPipeline
from ltx_dist.models.ltx_video.stand_ins import NoPixels, empty_conditions
from ltx_dist.models.pipelines import partial_pipeline
from ltx_dist.pipeline.payloads import Conditioning
from ltx_dist.pipeline.request import RenderRequest, SecondPass
from ltx_dist.weights.lora import use_loras


@dataclass(frozen=True, slots=True)
class Pass:
    """The settings of one pass, named as in diffusers; sizes in pixels."""

    height: int
    width: int
    num_inference_steps: int
    timesteps: tuple[float, ...] | None
    guidance_scale: float
    guidance_rescale: float
    image_cond_noise_scale: float
    denoise_strength: float


def first_pass(request: RenderRequest) -> Pass:
    height, width = request.first_size
    return Pass(
        height, width, request.num_inference_steps, request.timesteps, request.guidance_scale, request.guidance_rescale,
        request.image_cond_noise_scale, request.denoise_strength,
    )  # fmt: skip


def second_pass(request: RenderRequest) -> Pass:
    """The settings of the second pass.

    diffusers adds noise to latents only if the strength skips part of the schedule. So explicit timesteps get one more
    in front, and a strength that skips exactly that one.
    """
    two = request.second_pass
    assert isinstance(two, SecondPass), request.request_id
    steps, timesteps, strength = two.num_inference_steps, two.timesteps, two.denoise_strength
    if timesteps is not None:
        steps, timesteps, strength = len(timesteps) + 1, (1000.0, *timesteps), 1 - 0.5 / (len(timesteps) + 1)
    return Pass(
        two.height, two.width, steps, timesteps, two.guidance_scale, two.guidance_rescale, two.image_cond_noise_scale,
        strength,
    )  # fmt: skip


class Denoising:
    """The transformer in a pipeline without text encoder, and with a stand-in for the VAE."""

    def __init__(
        self, transformer: Any, pipeline_class: Any, noise_scheduler: Any, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._transformer = transformer
        self._pipeline_class, self._noise_scheduler = pipeline_class, noise_scheduler
        self._device, self._dtype = device, dtype

    def run(
        self,
        requests: Sequence[RenderRequest],
        settings: Pass,
        texts: Sequence[Conditioning],
        generators: Sequence[torch.Generator],
        on_step: Callable[[int], None],
        vae: Any,
        latents: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(requests, C, F, H, W) float32 on the CPU, normalised. `on_step` is called with the number of steps done.
        Raises FloatingPointError if they are not finite.

        vae: a stand-in that returns the posteriors of the request's media. latents: (1, C, F, H, W) to which noise is
        added, if `denoise_strength` is below 1. With media or latents there must be one request: diffusers would draw
        for all of them from the first generator, or raise.
        """
        request = requests[0]
        assert len(requests) == 1 or (not request.seen and latents is None)
        use_loras(self._transformer, request.loras)
        pipeline = self._pipeline(vae, request)
        if pipeline.scheduler.config.get("stochastic_sampling"):
            # The noise of every step is drawn without our generators: the pipelines pass none to the noise scheduler.
            torch.manual_seed(request.seed)

        def report_step(_: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            on_step(step + 1)
            return {}

        (result,) = pipeline(
            height=settings.height,
            width=settings.width,
            num_frames=request.num_frames,
            frame_rate=request.frame_rate,
            num_inference_steps=settings.num_inference_steps,
            timesteps=None if settings.timesteps is None else list(settings.timesteps),
            guidance_scale=settings.guidance_scale,
            guidance_rescale=settings.guidance_rescale,
            generator=list(generators),
            prompt_embeds=self._stacked([text.prompt_embeds for text in texts]),
            prompt_attention_mask=self._stacked([text.prompt_attention_mask for text in texts]),
            negative_prompt_embeds=self._stacked([text.negative_prompt_embeds for text in texts]),
            negative_prompt_attention_mask=self._stacked([text.negative_prompt_attention_mask for text in texts]),
            output_type="latent",
            return_dict=False,
            callback_on_step_end=report_step,
            callback_on_step_end_tensor_inputs=[],
            **self._media(pipeline, settings, request, latents),
        )
        unpacked = _unpacked(pipeline, result, settings, request.num_frames).float().cpu()
        check_finite(unpacked, "the latents are", self._dtype, "model.precision")
        return unpacked

    def _pipeline(self, vae: Any, request: RenderRequest) -> Any:
        """A separate pipeline for each call, because the noise scheduler remembers its step."""
        chosen = self._pipeline_class
        if request.conditions and chosen is diffusers.LTXPipeline:
            chosen = diffusers.LTXImageToVideoPipeline
        if request.reference:
            assert chosen is diffusers.LTXConditionPipeline, "older versions have no IC-LoRAs"
            chosen = InContextPipeline
        pipeline = partial_pipeline(
            chosen, scheduler=copy.deepcopy(self._noise_scheduler), vae=vae, transformer=self._transformer
        )
        if request.seen:
            pipeline.video_processor = NoPixels()
        return pipeline

    @staticmethod
    def _media(pipeline: Any, settings: Pass, request: RenderRequest, latents: torch.Tensor | None) -> dict[str, Any]:
        """Arguments that only some of the pipelines have."""
        if isinstance(pipeline, diffusers.LTXConditionPipeline):
            return {
                # An empty list would fail in the middle of the pipeline.
                "conditions": empty_conditions(request.seen) if request.seen else None,
                "image_cond_noise_scale": settings.image_cond_noise_scale,
                "denoise_strength": settings.denoise_strength,
                "latents": latents,
            }
        assert latents is None and settings.denoise_strength == 1, "only LTXConditionPipeline begins in the middle"
        return {"image": ""} if request.conditions else {}

    def _stacked(self, tensors: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
        """The tensors on the device, one row per request; None without guidance."""
        there = [tensor for tensor in tensors if tensor is not None]
        assert len(there) in (0, len(tensors)), "guidance is on for all or for none"
        return torch.cat(there).to(self._device) if there else None


def _unpacked(pipeline: Any, latents: torch.Tensor, settings: Pass, num_frames: int) -> torch.Tensor:
    """The latents as (requests, C, F, H, W), which `LTXConditionPipeline` returns; `LTXPipeline`'s are packed."""
    if latents.ndim == 5:
        return latents
    return pipeline._unpack_latents(
        latents,
        (num_frames - 1) // pipeline.vae_temporal_compression_ratio + 1,
        settings.height // pipeline.vae_spatial_compression_ratio,
        settings.width // pipeline.vae_spatial_compression_ratio,
        pipeline.transformer_spatial_patch_size,
        pipeline.transformer_temporal_patch_size,
    )
