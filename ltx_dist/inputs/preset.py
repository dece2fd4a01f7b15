"""Defaults of a model version: what a row leaves out, its preset fills in."""

from __future__ import annotations

from dataclasses import dataclass

TAKES_TIMESTEPS = "LTXConditionPipeline"
"""LTXPipeline of diffusers 0.42 raises on `timesteps`, because it passes sigmas of its own beside them."""


@dataclass(frozen=True, slots=True)
class Preset:
    """Defaults of one version, under diffusers' names. Sizes are pixels; frame_rate is frames a second.

    timesteps: an explicit schedule, num_inference_steps long. decode_noise_scale None means decode_timestep's value, as
    in diffusers. source: where the values are from. note: what of the source's settings is not done here.
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
