"""Conditioning -> Latents, by the `__call__` of the checkpoint's own diffusers pipeline with `output_type="latent"`."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.models.family import StageContext
from ltx_dist.models.finite import check_finite
from ltx_dist.models.ltx_video.geometry import VaeGeometry
from ltx_dist.pipeline.payloads import Conditioning, Latents
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.weights.loading import load_noise_scheduler, pipeline_class


class Denoise:
    """The transformer, in a pipeline that has neither text encoder nor VAE."""

    def __init__(
        self, components: Mapping[str, Any], checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._transformer = components["transformer"]
        self._device = device
        self._dtype = dtype
        self._pipeline_class = pipeline_class(checkpoint)
        self._noise_scheduler = load_noise_scheduler(checkpoint)
        self._geometry = VaeGeometry(checkpoint.spatial_compression_ratio, checkpoint.temporal_compression_ratio, dtype)

    def run(
        self, requests: Sequence[RenderRequest], inputs: Sequence[Mapping[str, Any]], context: StageContext
    ) -> list[Latents]:
        """Latents of each request on the CPU. Raises FloatingPointError where they are not finite.

        All requests share the passes: they differ in prompts and seeds, but in no other input of the transformer. Each
        has a CPU generator of its own, so the noise depends neither on the device nor on other clips. What a pass of
        several computes differs in the low bits from a pass of one: kernels choose their blocks by the size.
        """
        pipeline = self._new_pipeline()
        request = requests[0]
        conditionings: list[Conditioning] = [given["encode_text"] for given in inputs]
        if pipeline.scheduler.config.get("stochastic_sampling"):
            # Its noise of every step is drawn without our generators: the pipelines hand them to no scheduler.
            torch.manual_seed(request.seed)
        generators = [torch.Generator("cpu").manual_seed(request.seed) for request in requests]

        def report_step(_: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            context.on_step(step + 1)
            return {}

        (latents,) = pipeline(
            height=request.height,
            width=request.width,
            num_frames=request.num_frames,
            frame_rate=request.frame_rate,
            num_inference_steps=request.num_inference_steps,
            timesteps=None if request.timesteps is None else list(request.timesteps),
            guidance_scale=request.guidance_scale,
            guidance_rescale=request.guidance_rescale,
            generator=generators,
            prompt_embeds=self._stacked([c.prompt_embeds for c in conditionings]),
            prompt_attention_mask=self._stacked([c.prompt_attention_mask for c in conditionings]),
            negative_prompt_embeds=self._stacked([c.negative_prompt_embeds for c in conditionings]),
            negative_prompt_attention_mask=self._stacked([c.negative_prompt_attention_mask for c in conditionings]),
            output_type="latent",
            return_dict=False,
            callback_on_step_end=report_step,
            callback_on_step_end_tensor_inputs=[],
        )
        unpacked = self._unpacked(pipeline, latents, request).float().cpu()
        check_finite(unpacked, "the latents are", self._dtype, "model.precision")
        return [
            Latents(
                # A copy: a view would keep the others of the pass, and all of them would travel with it.
                latents=one.clone(memory_format=torch.contiguous_format),
                generator_state=generator.get_state(),
                embeds_dtype=str(conditioning.prompt_embeds.dtype).removeprefix("torch."),
            )
            for one, generator, conditioning in zip(unpacked.split(1), generators, conditionings, strict=True)
        ]

    def _new_pipeline(self) -> Any:
        """A pipeline of its own for each call, because the noise scheduler keeps the step it is at."""
        pipeline = self._pipeline_class(
            scheduler=copy.deepcopy(self._noise_scheduler),
            vae=self._geometry,
            text_encoder=None,
            tokenizer=None,
            transformer=self._transformer,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _stacked(self, tensors: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
        """On the device, one row per request; None without guidance."""
        given = [tensor for tensor in tensors if tensor is not None]
        assert len(given) in (0, len(tensors)), "guidance is on for all or for none"
        return torch.cat(given).to(self._device) if given else None

    @staticmethod
    def _unpacked(pipeline: Any, latents: torch.Tensor, request: RenderRequest) -> torch.Tensor:
        """(requests, C, F, H, W): `LTXPipeline` returns patches in a row, `LTXConditionPipeline` this shape."""
        if latents.ndim == 5:
            return latents
        return pipeline._unpack_latents(
            latents,
            (request.num_frames - 1) // pipeline.vae_temporal_compression_ratio + 1,
            request.height // pipeline.vae_spatial_compression_ratio,
            request.width // pipeline.vae_spatial_compression_ratio,
            pipeline.transformer_spatial_patch_size,
            pipeline.transformer_temporal_patch_size,
        )
