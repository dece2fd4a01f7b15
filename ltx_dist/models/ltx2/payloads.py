"""What the stages of LTX-2.x hand on. Tensors appear only as annotations: importing this loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import torch


@dataclass(frozen=True, slots=True)
class ConnectedText:
    """A prompt as the connectors leave it, S = max_sequence_length: 12.6 MB for each row of LTX-2.3.

    `pair`: of the negative prompt and the prompt, (2, S, 4096) for the video and (2, S, 2048) for the sound, made in
    one pass, as diffusers does: in bfloat16 its second row is not what the prompt alone gives. `alone`: of the prompt,
    (1, S, ...). Each is there if a denoising pass of the clip needs it. Masks are (rows, S), int64.
    embeds_dtype: name of the text encoder's dtype, in which the transformer is fed.
    """

    pair_video: torch.Tensor | None
    pair_audio: torch.Tensor | None
    pair_mask: torch.Tensor | None
    alone_video: torch.Tensor | None
    alone_audio: torch.Tensor | None
    alone_mask: torch.Tensor | None
    embeds_dtype: str


@dataclass(frozen=True, slots=True)
class ConditionLatents:
    """Conditions as the VAE's encoder sees them: the means, not normalised, (1, C, f, H/32, W/32) in its dtype.

    first, second: of each condition for each pass. second is empty where there is none, or where it starts from a first
    frame that the first pass kept.
    """

    first: tuple[torch.Tensor, ...]
    second: tuple[torch.Tensor, ...]


@dataclass(frozen=True, slots=True)
class SoundLatents:
    """What a denoising pass hands on.

    latents: (1, C, F, H, W) float32, normalised. audio_latents: (1, C, L, mel) float32, not normalised: diffusers'
        `output_type="latent"`.
    generator_state: (5056,) uint8, the clip's CPU generator after its last draw; a second pass draws on from there.
    embeds_dtype: name of the text embeddings' dtype, to which diffusers casts the latents before decoding.
    """

    latents: torch.Tensor
    audio_latents: torch.Tensor
    generator_state: torch.Tensor
    embeds_dtype: str


@dataclass(frozen=True, slots=True)
class DecodedClip:
    """Frames and sound on their way to the file; never leaves the worker.

    frames: (height, width, 3) uint8 RGB, made as they are taken. waveform: (channels, samples) float32 in [-1, 1], at
    sampling_rate samples per second.
    """

    frames: Iterator[np.ndarray]
    waveform: np.ndarray
    sampling_rate: int
