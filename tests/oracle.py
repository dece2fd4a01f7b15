"""The oracle of parity tests: diffusers' own monolithic pipeline, and the same clip made by our separate stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import diffusers
import numpy as np
import torch

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.models.family import StageContext, family_of
from ltx_dist.pipeline.payloads import DecodedClip, Latents
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import PLAIN, Storage

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Oracle:
    """What the monolithic pipeline made of a request: (1, C, F, H, W) latents and (T, H, W, 3) uint8 frames."""

    latents: torch.Tensor
    frames: np.ndarray


def make_request(request_id: str, **changes: object) -> RenderRequest:
    settings = {
        "request_id": request_id, "prompt": f"a clip called {request_id}", "negative_prompt": "blurry", "height": 64,
        "width": 96, "num_frames": 9, "frame_rate": 25.0, "num_inference_steps": 3, "guidance_scale": 3.0,
        "guidance_rescale": 0.0, "seed": 7, "decode_timestep": 0.05, "decode_noise_scale": 0.025,
        "max_sequence_length": 64,
    }  # fmt: skip
    return RenderRequest(**(settings | changes))


def render_monolithic(
    checkpoint: Checkpoint,
    request: RenderRequest,
    dtype: torch.dtype = torch.float32,
    vae_dtype: torch.dtype | None = None,
) -> Oracle:
    """diffusers' own call, once for the latents and once for the frames, from the same seed."""
    pipeline = getattr(diffusers, checkpoint.pipeline_class).from_pretrained(checkpoint.path, dtype=dtype)
    if vae_dtype is not None:
        # Loaded as stored: `pipeline.vae.to(vae_dtype)` would come after rounding to `dtype`.
        pipeline.vae = diffusers.AutoencoderKLLTXVideo.from_pretrained(checkpoint.path / "vae", dtype=vae_dtype)
        # `LTXConditionPipeline` does not cast to the VAE's dtype before it decodes, and fails.
        decode = pipeline.vae.decode
        pipeline.vae.decode = lambda latents, *rest, **named: decode(latents.to(vae_dtype), *rest, **named)
    pipeline.set_progress_bar_config(disable=True)
    latents = _call(pipeline, request, "latent")
    if latents.ndim == 3:
        latents = pipeline._unpack_latents(
            latents,
            (request.num_frames - 1) // pipeline.vae_temporal_compression_ratio + 1,
            request.height // pipeline.vae_spatial_compression_ratio,
            request.width // pipeline.vae_spatial_compression_ratio,
        )
    images = _call(pipeline, request, "pil")[0]
    return Oracle(latents, np.stack([np.asarray(image) for image in images]))


def _call(pipeline: diffusers.DiffusionPipeline, request: RenderRequest, output_type: str):
    torch.manual_seed(request.seed)  # 0.9.1's decoder draws from the global generator
    return pipeline(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        height=request.height,
        width=request.width,
        num_frames=request.num_frames,
        frame_rate=request.frame_rate,
        num_inference_steps=request.num_inference_steps,
        timesteps=request.timesteps,
        guidance_scale=request.guidance_scale,
        guidance_rescale=request.guidance_rescale,
        generator=torch.Generator("cpu").manual_seed(request.seed),
        decode_timestep=request.decode_timestep,
        decode_noise_scale=request.decode_noise_scale,
        max_sequence_length=request.max_sequence_length,
        output_type=output_type,
        return_dict=False,
    )[0]


def render_split(
    checkpoint: Checkpoint, request: RenderRequest, dtype: torch.dtype, storage: Storage = PLAIN
) -> tuple[Latents, np.ndarray]:
    """The last latents and the frames, by every device operation of the family's recipe."""
    family, steps = family_of(checkpoint), list[int]()
    outputs: dict[str, Any] = {}
    for stage in (family.recipe[name] for name in family.recipe.of(request)):
        if stage.runs_on == "host":
            continue
        modules = {name: family.load_component(name, checkpoint, dtype, storage, CPU) for name in stage.components}
        operation = family.operation(stage.operation)(modules, checkpoint, CPU, dtype)
        inputs = {name: outputs[name] for name in stage.inputs if name in outputs}
        with torch.inference_mode():
            (output,) = operation.run([request], [inputs], StageContext(stage, steps.append))
            if isinstance(output, DecodedClip):
                frames = np.stack(list(output.frames))
        outputs[stage.name] = output
    assert steps == list(range(1, request.num_inference_steps + 1))
    latents = next(output for output in reversed(outputs.values()) if isinstance(output, Latents))
    return latents, frames
