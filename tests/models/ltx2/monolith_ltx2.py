"""Renders with diffusers' own monolithic LTX-2 pipelines, for comparison with the stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.pipelines import ltx2
from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition
from safetensors.torch import load_file

from ltx_dist.media.images import open_image
from ltx_dist.media.video_in import read_frames
from ltx_dist.models.ltx2.denoise import UNSHIFTED, pipeline_class_of
from ltx_dist.pipeline.conditions import Condition, Lora
from ltx_dist.pipeline.request import RenderRequest

diffusers.utils.logging.disable_progress_bar()


@dataclass(frozen=True)
class Oracle:
    """frames: (T, H, W, 3) uint8; waveform: (channels, samples) float32; generator_state after the last draw."""

    frames: np.ndarray
    waveform: np.ndarray
    generator_state: torch.Tensor


def render(path: Path, request: RenderRequest, dtype: torch.dtype, cross_timestep: bool) -> Oracle:
    """The clip as diffusers' documentation renders it: one call, or two with the upsampler between them."""
    components: Any = pipeline_class_of(request).from_pretrained(path, dtype=dtype)
    for name in ("audio_vae", "vocoder"):
        of_sound = type(getattr(components, name)).from_pretrained(path / name, dtype=torch.float32)
        components.register_modules(**{name: of_sound})
    for lora in request.all_loras:
        tensors = {key: tensor.to(dtype) for key, tensor in load_file(lora.place).items()}
        components.load_lora_weights(tensors, adapter_name=lora.sha256)
    _use(components, request.loras)
    generator = torch.Generator("cpu").manual_seed(request.seed)
    sound = request.sound
    assert sound is not None
    height, width = request.first_size
    common = {
        "prompt": request.prompt, "num_frames": request.num_frames, "frame_rate": request.frame_rate,
        "max_sequence_length": request.max_sequence_length, "generator": generator,
        "use_cross_timestep": cross_timestep, "return_dict": False,
    }  # fmt: skip
    first = common | {
        "negative_prompt": request.negative_prompt, "height": height, "width": width,
        "num_inference_steps": request.num_inference_steps, "sigmas": list(sound.sigmas) if sound.sigmas else None,
        "guidance_scale": request.guidance_scale, "guidance_rescale": request.guidance_rescale,
        "stg_scale": sound.stg_scale, "modality_scale": sound.modality_scale,
        "audio_guidance_scale": sound.audio_guidance_scale, "audio_guidance_rescale": sound.audio_guidance_rescale,
        "audio_stg_scale": sound.audio_stg_scale, "audio_modality_scale": sound.audio_modality_scale,
        "spatio_temporal_guidance_blocks": list(sound.spatio_temporal_guidance_blocks),
    }  # fmt: skip
    media = _media(request)
    if sound.sigmas:
        _unshift(components)
    if request.second_pass is None:
        video, audio = components(**first, **media, output_type="pil")
        return _oracle(video, audio, generator)
    latents, audio_latents = components(**first, **media, output_type="latent")
    upsampler = ltx2.LTX2LatentUpsamplerModel.from_pretrained(path / "latent_upsampler", dtype=dtype)
    second = request.second_pass
    upsampled = diffusers.LTX2LatentUpsamplePipeline(vae=components.vae, latent_upsampler=upsampler)(
        latents=latents, height=height, width=width, num_frames=request.num_frames, output_type="latent",
        adain_factor=second.adain_factor, tone_map_compression_ratio=second.tone_map_compression_ratio,
        return_dict=False,
    )[0]  # fmt: skip
    _unshift(components)
    _use(components, request.all_loras)
    video, audio = components(
        **common, **media, latents=upsampled, audio_latents=audio_latents, height=request.height, width=request.width,
        num_inference_steps=len(second.sigmas), sigmas=list(second.sigmas), noise_scale=second.sigmas[0],
        guidance_scale=1.0, guidance_rescale=0.0, stg_scale=0.0, modality_scale=1.0, audio_guidance_scale=1.0,
        audio_guidance_rescale=0.0, audio_stg_scale=0.0, audio_modality_scale=1.0, output_type="pil",
    )  # fmt: skip
    if second.audio == "first":
        with torch.no_grad():
            audio = components.vocoder(components.audio_vae.decode(audio_latents, return_dict=False)[0])
    return _oracle(video, audio, generator)


def _use(pipeline: Any, loras: Sequence[Lora]) -> None:
    """Activate LoRAs as a user of diffusers does: on all components for which any of them has weights."""
    if loras:
        pipeline.set_adapters([lora.sha256 for lora in loras], [lora.weight for lora in loras])
        pipeline.enable_lora()
    elif pipeline.get_list_adapters():
        pipeline.disable_lora()


def _media(request: RenderRequest) -> dict[str, Any]:
    ratio = 8
    pipeline = pipeline_class_of(request)
    if pipeline is diffusers.LTX2Pipeline:
        return {}
    if pipeline is diffusers.LTX2ImageToVideoPipeline:
        (only,) = request.conditions
        return {"image": open_image(Path(only.place)), "image_crf": only.crf}
    last = (request.num_frames - 1) // ratio
    return {
        "conditions": [
            LTX2VideoCondition(
                frames=_frames(one),
                index=last if one.frame_index == -1 else (one.frame_index + ratio - 1) // ratio,
                strength=one.strength,
                crf=one.crf,
            )
            for one in request.conditions
        ]
    }


def _frames(condition: Condition) -> Any:
    if condition.is_video:
        return list(read_frames(Path(condition.place), condition.start_frame, condition.num_frames))
    return open_image(Path(condition.place))


def _unshift(pipeline: Any) -> None:
    pipeline.scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_config(pipeline.scheduler.config, **UNSHIFTED)


def _oracle(video: Any, audio: torch.Tensor, generator: torch.Generator) -> Oracle:
    frames = np.stack([np.asarray(image) for image in video[0]])
    return Oracle(frames, audio[0].float().numpy(), generator.get_state())
