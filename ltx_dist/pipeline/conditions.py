"""What else a clip is made from than its prompt: images and videos, a second pass, and LoRAs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Condition:
    """An image, or frames of a video, that the clip is to show from `frame_index` on; diffusers' LTXVideoCondition.

    place: absolute path or URL; not part of any key, as `sha256`, of the file's bytes, is. frame_index: of the clip.
    strength: 1 keeps the frames, less lets them change. start_frame and num_frames: which frames of a video, from 0; a
    multiple of the VAE's temporal ratio plus 1; an image has one. fit: how a picture of another shape is brought to the
    clip's. preprocess, crf and blur: see media/preprocess.py; 0 and False for `diffusers`, which has neither.
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

    first_height, first_width: of the first pass; the second has twice that, and its frames are scaled to the request's
    height and width. timesteps: that the second pass runs, falling from below 1000; or None, and of its
    `num_inference_steps` the last `denoise_strength` run. adain_factor: how far the statistics of each channel are
    brought back to the first pass's. tone_map_compression_ratio: 0 leaves highlights as they are; tone_map_at: before
    the second pass as in diffusers, or before decoding as in Lightricks' pipeline, which is another operation on other
    latents. Guidance and noise scale are the second pass's own.
    """

    first_height: int
    first_width: int
    num_inference_steps: int
    timesteps: tuple[float, ...] | None
    denoise_strength: float
    guidance_scale: float
    guidance_rescale: float
    image_cond_noise_scale: float
    adain_factor: float = 1.0
    tone_map_compression_ratio: float = 0.0
    tone_map_at: Literal["upsample", "decode"] = "decode"

    @property
    def height(self) -> int:
        return 2 * self.first_height

    @property
    def width(self) -> int:
        return 2 * self.first_width

    @property
    def num_steps(self) -> int:
        """The steps that it runs."""
        if self.timesteps is not None:
            return len(self.timesteps)
        return steps_of(self.num_inference_steps, self.denoise_strength)


@dataclass(frozen=True, slots=True)
class Lora:
    """Low-rank weights beside the transformer's. place: absolute path; sha256: of the file; weight: their factor."""

    place: str
    sha256: str
    weight: float = 1.0


def steps_of(num_inference_steps: int, denoise_strength: float) -> int:
    """The steps that remain when denoising begins in the middle: diffusers' own rule, which rounds down."""
    return min(int(num_inference_steps * denoise_strength), num_inference_steps)
