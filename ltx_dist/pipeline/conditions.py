"""What a clip is made from besides its prompt: images and videos, a second pass, and LoRAs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ltx_dist.pipeline.settings import setting

ADAIN = setting("how far each channel's statistics are brought back to those of the first pass", ge=0, le=1)
TONE_MAP = setting("compression of highlights between the passes; 0 leaves them", ge=0, le=1)


@dataclass(frozen=True, slots=True)
class Condition:
    """An image, or frames of a video, that the clip shows from `frame_index` on; diffusers' LTXVideoCondition.

    place: absolute path or URL; in no key, because `sha256`, the digest of the file's bytes, is. frame_index: the
    clip's frame at which it begins. strength: 1 keeps the frames, lower values let them change. start_frame: first
    frame taken from a video, counted from 0. num_frames: how many are taken: a multiple of the VAE's temporal ratio
    plus 1; an image has one. fit: how a picture of another shape is brought to the clip's. preprocess, crf and blur:
    see media/preprocess.py; 0 and False for `diffusers`, which has neither.
    """

    place: str
    sha256: str
    is_video: bool = False
    frame_index: int = 0
    strength: float = 1.0
    start_frame: int = 0
    num_frames: int = 1
    fit: Literal["crop", "stretch", "pad"] = "crop"
    preprocess: Literal["diffusers", "official"] = "diffusers"
    crf: int = 0
    blur: bool = False


@dataclass(frozen=True, slots=True)
class SecondPass:
    """Denoise at a smaller size, double it with the latent upsampler, and denoise a little more.

    first_height, first_width: pixels of the first pass; the second has twice as many each way, and its frames are
    scaled to the request's height and width. timesteps: the second pass's schedule, decreasing from below 1000; None
    runs the last `denoise_strength` (a share) of its `num_inference_steps`. adain_factor: how far the statistics of
    each channel are brought back to the first pass's. tone_map_compression_ratio: 0 leaves highlights as they are.
    tone_map_at: `upsample` compresses them before the second pass, as in diffusers; `decode` before decoding, as in
    Lightricks' pipeline, which is a different operation on different latents. Guidance and noise scale are the second
    pass's own.
    """

    first_height: int
    first_width: int
    num_inference_steps: int = field(metadata=setting("steps, of which a share runs", ge=1, le=1000))
    timesteps: tuple[float, ...] | None = field(
        metadata=setting("the schedule, instead of steps and a share of them; decreasing, from below 1000")
    )
    denoise_strength: float = field(metadata=setting("share of the steps that runs", gt=0, lt=1))
    guidance_scale: float = field(metadata=setting("as in the first pass, whose value it has if not set", ge=0))
    guidance_rescale: float = field(metadata=setting("like `guidance_scale`", ge=0, le=1))
    image_cond_noise_scale: float = field(metadata=setting("like `guidance_scale`", ge=0, le=1))
    adain_factor: float = field(default=1.0, metadata=ADAIN)
    tone_map_compression_ratio: float = field(default=0.0, metadata=TONE_MAP)
    tone_map_at: Literal["upsample", "decode"] = field(
        default="decode",
        metadata=setting("before the second pass as in diffusers, or before decoding as published"),
    )

    @property
    def height(self) -> int:
        return 2 * self.first_height

    @property
    def width(self) -> int:
        return 2 * self.first_width

    @property
    def num_steps(self) -> int:
        """Number of steps that it runs."""
        if self.timesteps is not None:
            return len(self.timesteps)
        return steps_of(self.num_inference_steps, self.denoise_strength)


@dataclass(frozen=True, slots=True)
class Windows:
    """Denoise a long clip in windows, one after another, each overlapping the one before.

    prompts: one for each window. Other names and meanings are those of diffusers' LTXI2VLongMultiPromptPipeline; sizes
    are in frames and multiples of the VAE's temporal ratio.
    """

    prompts: tuple[str, ...]
    temporal_tile_size: int
    temporal_overlap: int
    temporal_overlap_cond_strength: float
    adain_factor: float

    @property
    def distinct_prompts(self) -> tuple[str, ...]:
        """Each prompt once, in the order of its first window."""
        return tuple(dict.fromkeys(self.prompts))


def window_places(num_frames: int, temporal_tile_size: int, temporal_overlap: int, ratio: int) -> list[tuple[int, int]]:
    """First and past-the-last latent frame of each window, as diffusers places them. ratio: frames per latent frame."""
    length, tile, overlap = (num_frames - 1) // ratio + 1, temporal_tile_size // ratio, temporal_overlap // ratio
    places = [(0, min(tile, length))]
    while places[-1][1] < length:
        start = places[-1][0] + tile - overlap
        places.append((start, min(start + tile, length)))
    return places


@dataclass(frozen=True, slots=True)
class Lora:
    """Low-rank weights added to the transformer's. place: absolute path. sha256: of the file. weight: their factor."""

    place: str
    sha256: str
    weight: float = 1.0


def steps_of(num_inference_steps: int, denoise_strength: float) -> int:
    """Number of steps that remain when denoising begins in the middle: diffusers' own rule, which rounds down."""
    return min(int(num_inference_steps * denoise_strength), num_inference_steps)
