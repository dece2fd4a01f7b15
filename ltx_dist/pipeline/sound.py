"""Settings of clips with sound, which only LTX-2.x has, under diffusers' names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class SoundSettings:
    """Settings of the first, or only, denoising pass. `audio_*` guide the sound as the others guide the video.

    stg_scale: 0 turns spatio-temporal guidance off; it leaves out attention in spatio_temporal_guidance_blocks.
    modality_scale: 1 turns off the guidance by a prediction in which sound and video do not see each other. sigmas: a
    schedule of its own, num_inference_steps long and falling from at most 1; None leaves it to the noise scheduler.
    """

    stg_scale: float
    modality_scale: float
    audio_guidance_scale: float
    audio_guidance_rescale: float
    audio_stg_scale: float
    audio_modality_scale: float
    spatio_temporal_guidance_blocks: tuple[int, ...] = ()
    sigmas: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class SoundSecondPass:
    """Denoise at half the height and width, double them with the latent upsampler, and denoise again without guidance.

    first_height, first_width: pixels of the first pass. sigmas: of the second; its first one is also how much of the
    start is noise. adain_factor: how far the statistics of each channel are brought back to the first pass's.
    tone_map_compression_ratio: 0 leaves highlights as they are. audio: whose sound is decoded: diffusers' examples take
    the second pass's.
    """

    first_height: int
    first_width: int
    sigmas: tuple[float, ...]
    adain_factor: float = 0.0
    tone_map_compression_ratio: float = 0.0
    audio: Literal["first", "second"] = "second"

    @property
    def height(self) -> int:
        return 2 * self.first_height

    @property
    def width(self) -> int:
        return 2 * self.first_width

    @property
    def num_steps(self) -> int:
        """The steps that it runs."""
        return len(self.sigmas)


def latent_index(frame_index: int, num_frames: int, temporal_ratio: int) -> int:
    """The latent frame at which `LTX2ConditionPipeline` puts a condition given by frame; -1 is the last one.

    A latent frame after the first stands for `temporal_ratio` frames, and a condition lies at the first of them: at
    frame 0, 1, 9, 17 and so on. Raises ValueError naming the nearest ones for another frame.
    """
    last = (num_frames - 1) // temporal_ratio
    if frame_index in (-1, 0):
        return last if frame_index else 0
    if not 0 < frame_index < num_frames:
        raise ValueError(f"{frame_index} is not a frame of the clip; use 0 to {num_frames - temporal_ratio}, or -1")
    before, beyond = divmod(frame_index - 1, temporal_ratio)
    if beyond:
        below, above = frame_index - beyond, frame_index - beyond + temporal_ratio
        either = f"{below} or {above}" if above < num_frames else f"{below}"
        raise ValueError(f"{frame_index} is not where a latent frame begins; use {either}")
    return before + 1
