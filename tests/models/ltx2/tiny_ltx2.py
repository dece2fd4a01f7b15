"""Tiny checkpoints of LTX-2.0, 2.3 and 2.5 for the real classes, and requests for their clips."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.sound import SoundSecondPass, SoundSettings

sys.path.insert(0, str(Path(__file__).parents[3] / "tools"))
from ltx2_configs import VERSIONS, Version  # noqa: E402
from make_ltx2_checkpoint import make_checkpoint  # noqa: E402

__all__ = [
    "VERSIONS",
    "Version",
    "call_transformer",
    "checkpoint",
    "make_checkpoint",
    "make_request",
    "two_passes",
    "unguided",
]

GUIDED = SoundSettings(
    stg_scale=1.0,
    modality_scale=3.0,
    audio_guidance_scale=7.0,
    audio_guidance_rescale=0.7,
    audio_stg_scale=1.0,
    audio_modality_scale=3.0,
    spatio_temporal_guidance_blocks=(1,),
)
UNGUIDED = SoundSettings(
    stg_scale=0.0,
    modality_scale=1.0,
    audio_guidance_scale=1.0,
    audio_guidance_rescale=0.0,
    audio_stg_scale=0.0,
    audio_modality_scale=1.0,
)
DISTILLED_SIGMAS = (1.0, 0.975, 0.725)
SECOND_SIGMAS = (0.909375, 0.725, 0.421875)


def checkpoint(folder: Path) -> Checkpoint:
    return Checkpoint(
        name=str(folder),
        path=folder,
        pipeline_class="LTX2Pipeline",
        spatial_compression_ratio=32,
        temporal_compression_ratio=8,
        timestep_conditioning=False,
        latent_channels=4,
        weights={},
        num_parameters={},
    )


def make_request(request_id: str = "robot", **changes: object) -> RenderRequest:
    """A request with all guidance on, in three steps."""
    request = RenderRequest(
        request_id=request_id, prompt="a robot", negative_prompt="bad", height=64, width=96, num_frames=17,
        frame_rate=24.0, num_inference_steps=3, guidance_scale=3.0, guidance_rescale=0.7, seed=5, decode_timestep=0.0,
        decode_noise_scale=None, max_sequence_length=16, sound=GUIDED,
    )  # fmt: skip
    return replace(request, **changes)


def unguided(request: RenderRequest) -> RenderRequest:
    """The request as distilled weights are rendered: with sigmas of its own and no guidance."""
    sound = replace(UNGUIDED, sigmas=DISTILLED_SIGMAS)
    return replace(request, guidance_scale=1.0, guidance_rescale=0.0, sound=sound)


def two_passes(request: RenderRequest, **changes: object) -> RenderRequest:
    """A request in two passes: `request` is the first, and the second is twice as large."""
    second = SoundSecondPass(request.height, request.width, SECOND_SIGMAS)
    return replace(request, height=2 * request.height, width=2 * request.width, second_pass=replace(second, **changes))


def call_transformer(
    model: Any, version: Any, frames: int, height: int, width: int, sound: int, text: int, rows: int, per_token: bool,
    device: Any = "cpu",
) -> Any:  # fmt: skip
    """The prediction of a full-size transformer, called as by diffusers' pipelines.

    The coordinates are made here, so that measurements around the call include them. frames, height, width:
    video latents; sound: sound latents; text: tokens; per_token: whether each video token has a timestep of its own.
    """
    tokens, kwargs = frames * height * width, {"device": device, "dtype": next(model.parameters()).dtype}
    wide, narrow = (3840, 3840) if version == "2.0" else (4096, 2048)
    mask = torch.ones(rows, text, dtype=torch.int64, device=device)
    timesteps = {"timestep": torch.empty(rows, tokens, **kwargs), "audio_timestep": torch.empty(rows, **kwargs)}
    return model(
        hidden_states=torch.empty(rows, tokens, 128, **kwargs),
        audio_hidden_states=torch.empty(rows, sound, 128, **kwargs),
        encoder_hidden_states=torch.empty(rows, text, wide, **kwargs),
        audio_encoder_hidden_states=torch.empty(rows, text, narrow, **kwargs),
        **(timesteps if per_token else {"timestep": torch.empty(rows, **kwargs)}),
        sigma=torch.empty(rows, **kwargs),
        encoder_attention_mask=mask,
        audio_encoder_attention_mask=mask,
        num_frames=frames,
        height=height,
        width=width,
        fps=24.0,
        audio_num_frames=sound,
        video_coords=model.rope.prepare_video_coords(rows, frames, height, width, device, fps=24.0),
        audio_coords=model.audio_rope.prepare_audio_coords(rows, sound, device),
        use_cross_timestep=version != "2.0",
        return_dict=False,
    )
