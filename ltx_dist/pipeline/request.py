"""What a user asks for: one clip, every setting resolved."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """One clip to make, every setting resolved. Field names and meanings are those of diffusers' LTX pipelines.

    `request_id` is also the file name without its ending. Sizes are pixels; `height` and `width` are multiples of
    the VAE's spatial compression and of 32; `num_frames` is k times its temporal compression plus 1. `timesteps` is a
    schedule of its own, `num_inference_steps` long and falling from at most 1000; None leaves it to diffusers.
    """

    request_id: str
    prompt: str
    negative_prompt: str
    height: int
    width: int
    num_frames: int
    frame_rate: float
    num_inference_steps: int
    guidance_scale: float
    guidance_rescale: float
    seed: int
    decode_timestep: float
    decode_noise_scale: float | None
    max_sequence_length: int
    timesteps: tuple[float, ...] | None = None

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether the negative prompt is encoded and used at all (diffusers' own rule)."""
        return self.guidance_scale > 1.0
