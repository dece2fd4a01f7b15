"""What a user asks for: one clip, every setting resolved."""

from __future__ import annotations

from dataclasses import dataclass

from ltx_dist.pipeline.conditions import Condition, Lora, SecondPass, steps_of
from ltx_dist.pipeline.sound import SoundSecondPass, SoundSettings


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """One clip to make, every setting resolved. Field names and meanings are those of diffusers' LTX pipelines.

    `request_id` is also the file name without its ending. Sizes are pixels; `height` and `width` are multiples of
    the VAE's spatial compression and of 32; `num_frames` is k times its temporal compression plus 1. `timesteps` is a
    schedule of its own, `num_inference_steps` long and falling from at most 1000; None leaves it to diffusers.
    `video`: what the clip begins as, in place of noise alone; of its steps only the last `denoise_strength` run.
    `second_pass`: None renders in one pass at full size. `loras`: in their order, which the low bits depend on.
    `sound`: of LTX-2.x, whose clips have some.
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
    conditions: tuple[Condition, ...] = ()
    image_cond_noise_scale: float = 0.15
    video: Condition | None = None
    denoise_strength: float = 1.0
    second_pass: SecondPass | SoundSecondPass | None = None
    loras: tuple[Lora, ...] = ()
    sound: SoundSettings | None = None

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether the negative prompt is encoded and used at all, in any pass (diffusers' own rule, which asks sound
        and video)."""
        guided = self.guidance_scale > 1.0 or (self.sound is not None and self.sound.audio_guidance_scale > 1.0)
        return guided or (isinstance(self.second_pass, SecondPass) and self.second_pass.guidance_scale > 1.0)

    @property
    def company(self) -> str:
        """Equal for requests that may share a pass, if all else is: one with media has it to itself."""
        return self.request_id if self.has_media else ""

    @property
    def num_steps(self) -> int:
        """The steps that the first pass runs."""
        return steps_of(self.num_inference_steps, self.denoise_strength)

    @property
    def has_media(self) -> bool:
        """Whether the VAE has anything to encode."""
        return bool(self.conditions) or self.video is not None

    @property
    def first_size(self) -> tuple[int, int]:
        """Height and width, in pixels, that the first pass denoises."""
        two = self.second_pass
        return (two.first_height, two.first_width) if two else (self.height, self.width)

    @property
    def decoded_size(self) -> tuple[int, int]:
        """Height and width, in pixels, that the VAE decodes; the frames are scaled to `height` and `width` after."""
        two = self.second_pass
        return (two.height, two.width) if two else (self.height, self.width)
