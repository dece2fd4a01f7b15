"""Conditioning -> Latents, by the `__call__` of the checkpoint's own diffusers pipeline with `output_type="latent"`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.stages.geometry import VaeGeometry
from ltx_dist.stages.loading import load_noise_scheduler, load_transformer, pipeline_class
from ltx_dist.types import PLAIN, Conditioning, Latents, RenderRequest, Storage


class Denoiser:
    """The transformer, in a pipeline that has neither text encoder nor VAE."""

    def __init__(
        self, checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device, storage: Storage = PLAIN
    ) -> None:
        self.module = load_transformer(checkpoint, dtype, storage.transformer)
        self._device = device
        self._pipeline_class = pipeline_class(checkpoint)
        self._noise_scheduler = load_noise_scheduler(checkpoint)
        self._geometry = VaeGeometry(checkpoint.spatial_compression_ratio, checkpoint.temporal_compression_ratio, dtype)

    @property
    def blocks(self) -> Sequence[torch.nn.Module]:
        """What it can be streamed in."""
        return self.module.transformer_blocks

    def denoise(self, request: RenderRequest, conditioning: Conditioning, on_step: Callable[[int], None]) -> Latents:
        """Latents on the CPU. `on_step` is called with the number of steps done, after each.

        The clip has a CPU generator of its own, so the noise depends neither on the device nor on other clips.
        """
        pipeline = self._new_pipeline()
        generator = torch.Generator("cpu").manual_seed(request.seed)

        def report_step(_: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            on_step(step + 1)
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
            generator=generator,
            prompt_embeds=self._to_device(conditioning.prompt_embeds),
            prompt_attention_mask=self._to_device(conditioning.prompt_attention_mask),
            negative_prompt_embeds=self._to_device(conditioning.negative_prompt_embeds),
            negative_prompt_attention_mask=self._to_device(conditioning.negative_prompt_attention_mask),
            output_type="latent",
            return_dict=False,
            callback_on_step_end=report_step,
            callback_on_step_end_tensor_inputs=[],
        )
        return Latents(
            latents=self._unpacked(pipeline, latents, request).float().cpu().contiguous(),
            generator_state=generator.get_state(),
            embeds_dtype=str(conditioning.prompt_embeds.dtype).removeprefix("torch."),
        )

    def _new_pipeline(self) -> Any:
        """A pipeline of its own for each clip, because the noise scheduler keeps the step it is at."""
        pipeline = self._pipeline_class(
            scheduler=copy.deepcopy(self._noise_scheduler),
            vae=self._geometry,
            text_encoder=None,
            tokenizer=None,
            transformer=self.module,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _to_device(self, tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else tensor.to(self._device)

    @staticmethod
    def _unpacked(pipeline: Any, latents: torch.Tensor, request: RenderRequest) -> torch.Tensor:
        """(1, C, F, H, W): `LTXPipeline` returns its latents as a sequence of patches, `LTXConditionPipeline` not."""
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
