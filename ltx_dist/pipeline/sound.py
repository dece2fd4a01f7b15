"""Settings of clips with sound, which only LTX-2.x makes, under diffusers' names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ltx_dist.pipeline.conditions import ADAIN, TONE_MAP, Lora
from ltx_dist.pipeline.settings import setting


@dataclass(frozen=True, slots=True)
class SoundSettings:
    """Settings of the first, or only, denoising pass. `audio_*` guide the sound as the others guide the video.

    stg_scale: 0 turns off spatio-temporal guidance, which skips attention in spatio_temporal_guidance_blocks.
    modality_scale: 1 turns off the guidance by a prediction in which sound and video do not see each other. sigmas: a
    custom schedule, num_inference_steps long and decreasing from at most 1; None leaves it to the noise scheduler.
    """

    stg_scale: float = field(
        metadata=setting(
            "LTX-2: strength of the video's spatio-temporal guidance; 0 turns it off and saves one pass per step",
            ge=0,
        )
    )
    modality_scale: float = field(
        metadata=setting(
            "LTX-2: strength of the guidance that makes sound and video match; 1 turns it off and saves one pass per "
            "step",
            ge=0,
        )
    )
    audio_guidance_scale: float = field(metadata=setting("LTX-2: `guidance_scale` of the sound", ge=0))
    audio_guidance_rescale: float = field(metadata=setting("LTX-2: `guidance_rescale` of the sound", ge=0, le=1))
    audio_stg_scale: float = field(metadata=setting("LTX-2: `stg_scale` of the sound", ge=0))
    audio_modality_scale: float = field(metadata=setting("LTX-2: `modality_scale` of the sound", ge=0))
    spatio_temporal_guidance_blocks: tuple[int, ...] = field(
        default=(),
        metadata=setting(
            "LTX-2: indices of the transformer blocks whose attention `stg_scale` and `audio_stg_scale` skip"
        ),
    )
    sigmas: tuple[float, ...] | None = field(
        default=None,
        metadata=setting(
            "LTX-2: a schedule that replaces `num_inference_steps`: decreasing numbers, from at most 1; used without "
            "shifting"
        ),
    )


@dataclass(frozen=True, slots=True)
class SoundSecondPass:
    """Denoise at half the height and width, double them with the latent upsampler, and denoise again without guidance.

    first_height, first_width: pixels of the first pass. sigmas: schedule of the second; its first value is also the
    share of noise that it starts from. adain_factor: how far the statistics of each channel are brought back to the
    first pass's. tone_map_compression_ratio: 0 leaves highlights as they are. audio: the pass whose sound is decoded;
    diffusers' examples take the second. loras: used in this pass after those of the request.
    """

    first_height: int
    first_width: int
    sigmas: tuple[float, ...] = field(metadata=setting("LTX-2: the schedule; decreasing, from below 1"))
    adain_factor: float = field(default=0.0, metadata=ADAIN)
    tone_map_compression_ratio: float = field(default=0.0, metadata=TONE_MAP)
    audio: Literal["first", "second"] = field(default="second", metadata=setting("LTX-2: the pass whose sound is kept"))
    loras: tuple[Lora, ...] = ()

    @property
    def height(self) -> int:
        return 2 * self.first_height

    @property
    def width(self) -> int:
        return 2 * self.first_width

    @property
    def num_steps(self) -> int:
        """Number of steps that it runs."""
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
