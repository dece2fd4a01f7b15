"""Defaults of a model version: what a row leaves out, its preset fills in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TAKES_TIMESTEPS = "LTXConditionPipeline"
"""LTXPipeline of diffusers 0.42 raises on `timesteps`, because it passes sigmas of its own beside them."""


@dataclass(frozen=True, slots=True)
class TwoPasses:
    """How a version is published with a latent upscaler: what its first pass has in place of the preset's settings, the
    settings of its second, where they are from, and what of the source's settings is not done here."""

    first: Mapping[str, Any]
    second: Mapping[str, Any]
    source: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Preset:
    """Defaults of one version, under diffusers' names. Sizes are pixels; frame_rate is frames a second.

    timesteps: an explicit schedule, num_inference_steps long. decode_noise_scale None means decode_timestep's value, as
    in diffusers. source: where the values are from. note: what of the source's settings is not done here.
    stg_scale to sigmas: of LTX-2, whose presets set all of its guidance.
    image_cond_noise_scale: diffusers' default and that of Lightricks' inference.py. two_passes: None where the version
    is published with one.
    Pipeline class and noise scheduler are those of checkpoints/versions.py, or what a diffusers folder itself says.
    """

    version: str
    height: int
    width: int
    num_frames: int
    frame_rate: float
    num_inference_steps: int
    guidance_scale: float
    guidance_rescale: float
    decode_timestep: float
    decode_noise_scale: float | None
    max_sequence_length: int
    negative_prompt: str
    source: str
    timesteps: tuple[float, ...] | None = None
    note: str = ""
    image_cond_noise_scale: float = 0.15
    two_passes: TwoPasses | None = None
    stg_scale: float | None = None
    modality_scale: float | None = None
    audio_guidance_scale: float | None = None
    audio_guidance_rescale: float | None = None
    audio_stg_scale: float | None = None
    audio_modality_scale: float | None = None
    spatio_temporal_guidance_blocks: tuple[int, ...] | None = None
    sigmas: tuple[float, ...] | None = None
