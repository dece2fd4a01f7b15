"""How weights are stored, how a clip is cut for decoding and how it is encoded: settings that change what is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class DecodeTiling:
    """The tiles in which the VAE decodes a clip: at most this many pixels high and wide, and frames long.

    None: not cut that way. Pieces overlap and are blended, so each tiling gives other pixels: a single one is resolved
    for the whole batch, whichever worker decodes.
    """

    tile_size: int | None = None
    tile_frames: int | None = None

    def of(self, height: int, width: int, num_frames: int, temporal_ratio: int) -> DecodeTiling:
        """The tiling that takes effect for a clip: one that is no larger than a tile is not cut.

        temporal_ratio: frames per latent frame of the VAE.
        """
        latent_frames = (num_frames - 1) // temporal_ratio + 1
        cuts_space = self.tile_size is not None and max(height, width) > self.tile_size
        cuts_time = self.tile_frames is not None and latent_frames > self.tile_frames // temporal_ratio
        return DecodeTiling(self.tile_size if cuts_space else None, self.tile_frames if cuts_time else None)


UNTILED = DecodeTiling()


TILE_OVERLAP_PIXELS = 64
TILE_OVERLAP_FRAMES = 8
"""The overlap of two tiles, where they are blended: two latent pixels as in diffusers' defaults, one latent frame."""


@dataclass(frozen=True, slots=True)
class Storage:
    """How weights are stored on the device if not in the model's precision; each option changes the pixels.

    transformer: `float8` keeps linear layers in 8 bits, cast up as they are used. text_encoder: how its linear layers
    are stored. vae: the VAE's own precision, in which it also computes; `same` is the model's. It does not affect the
    latents.
    """

    transformer: Literal["same", "float8"] = "same"
    text_encoder: Literal["none", "int8", "int4"] = "none"
    vae: Literal["same", "float32", "bfloat16", "float16"] = "same"

    def is_quantised(self, component: str) -> bool:
        """Whether the component's layers are made on the device as they are read, which then refuse to move."""
        return getattr(self, component, None) in ("int8", "int4")

    def stored_as(self, component: str, precision: str) -> str:
        """What decides how fast a component computes: `bfloat16`, or `bfloat16/float8` for layers in fewer bits."""
        if component == "vae":
            return self.vae_precision(precision)
        stored = getattr(self, component, "same")
        return precision if stored in ("same", "none") else f"{precision}/{stored}"

    def vae_precision(self, precision: str) -> str:
        """The VAE's precision, given the model's."""
        return precision if self.vae == "same" else self.vae


PLAIN = Storage()


AlsoFormat = Literal["prores", "ffv1", "av1"]
"""Files that a clip may have beside its mp4."""


@dataclass(frozen=True, slots=True)
class Mp4Settings:
    """How frames become an mp4; each of these changes the file's bytes. Meanings: `output` in the config.

    crf: x264's constant rate factor, 0 to 51; 0 is lossless. threads: fixed, because their number changes the bytes.
    audio: how the sound is stored, if the model makes any. pad_audio: whether silence extends it to the end of the
    video.
    also: other files to make from the same frames. version: of everything else that decides the bytes; raise it when
    equal frames and settings give other bytes.
    """

    crf: int = 17
    preset: str = "medium"
    threads: int = 2
    audio: Literal["aac", "alac", "none"] = "aac"
    pad_audio: bool = True
    also: tuple[AlsoFormat, ...] = ()
    version: int = 2
