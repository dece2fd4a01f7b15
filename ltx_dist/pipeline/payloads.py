"""The outputs of stages. Tensors appear only as annotations: importing this loads no torch.

Only small things travel between workers: text conditioning (2-4 MB), latents (3-9 MB), one mp4 (1-5 MB). Decoded
frames (120-660 MB) stay in the worker that decodes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True, slots=True)
class Conditioning:
    """The output of the text encoder.

    prompt_embeds: (1, max_sequence_length, caption_channels) in the text encoder's dtype.
    prompt_attention_mask: (1, max_sequence_length) bool. The negative pair is None without guidance.
    """

    prompt_embeds: torch.Tensor
    prompt_attention_mask: torch.Tensor
    negative_prompt_embeds: torch.Tensor | None
    negative_prompt_attention_mask: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class EncodedMedia:
    """The output of the VAE's encoder: not samples of its posteriors but their moments, because diffusers draws the
    samples with the clip's generator in between its other draws.

    seen: the moments of each of the request's `seen`, in order, at the first pass's size: (1, C + 1, F, H, W) in the
        VAE's dtype, C means and one log variance that all channels share. refined: the same at the second pass's size,
        or ().
    video: the moments of the video that the clip begins as, at the first pass's size; None if there is none.
    latents_mean, latents_std: (C,) in the VAE's dtype, by which diffusers normalises the samples.
    """

    seen: tuple[torch.Tensor, ...]
    refined: tuple[torch.Tensor, ...]
    video: torch.Tensor | None
    latents_mean: torch.Tensor
    latents_std: torch.Tensor


@dataclass(frozen=True, slots=True)
class ConnectedText:
    """The output of the connectors; S = max_sequence_length. A row of LTX-2.3 has 12.6 MB.

    video: (rows, S, 4096); audio: (rows, S, 2048); mask: (rows, S) int64. One of each per distinct text. A pass with
    guidance takes the negative prompt and the prompt in two rows, made together as in diffusers: in bfloat16 the second
    row differs from that of the prompt alone. A pass without guidance takes one row, the prompt. LoRAs may change the
    connectors. of_pass: for each denoising pass, the index of the text that it takes.
    embeds_dtype: name of the text encoder's dtype, in which the transformer gets its embeddings.
    """

    video: tuple[torch.Tensor, ...]
    audio: tuple[torch.Tensor, ...]
    mask: tuple[torch.Tensor, ...]
    of_pass: tuple[int, ...]
    embeds_dtype: str


@dataclass(frozen=True, slots=True)
class ConditionLatents:
    """Conditions as the VAE encodes them: the means, not normalised, (1, C, f, H/32, W/32) in its dtype.

    first, second: one tensor per condition, for the first and the second pass. second is empty if there is no second
    pass, or if it starts from a first frame that the first pass kept.
    """

    first: tuple[torch.Tensor, ...]
    second: tuple[torch.Tensor, ...]


@dataclass(frozen=True, slots=True)
class Latents:
    """The output of the transformer.

    latents: (1, C, F, H, W) float32, normalised (diffusers' `output_type="latent"`, unpacked).
    generator_state: (5056,) uint8, the clip's CPU generator after it drew the initial noise: the decode noise of
        timestep-conditioned VAEs is its next draw, so the state travels, not the seed.
    embeds_dtype: name of the text embeddings' dtype, to which diffusers casts the latents before decoding.
    """

    latents: torch.Tensor
    generator_state: torch.Tensor
    embeds_dtype: str

    def sha256(self) -> str:
        """Hex digest of the latents' bytes."""
        return hashlib.sha256(self.latents.numpy().tobytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class SoundLatents(Latents):
    """`Latents` of a model that also makes sound.

    audio_latents: (1, C, L, mel) float32, not normalised: diffusers' `output_type="latent"`.
    """

    audio_latents: torch.Tensor


@dataclass(frozen=True, slots=True)
class Sound:
    """waveform: (channels, samples) float32 in [-1, 1]. sampling_rate: samples per second."""

    waveform: np.ndarray
    sampling_rate: int

    def sha256(self) -> str:
        """Hex digest of the waveform's bytes, one channel after another."""
        return hashlib.sha256(self.waveform.tobytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class DecodedClip:
    """The output of a decoder, for the host of its own worker; it never leaves that process.

    frames: (height, width, 3) uint8 RGB each, decoded lazily. latents_sha256: digest of the latents that they come
    from.
    """

    frames: Iterator[np.ndarray]
    latents_sha256: str
    sound: Sound | None = None


@dataclass(frozen=True, slots=True)
class SoundFacts:
    """The record of a clip's sound: of the model's waveform, before any silence is added."""

    audio_sha256: str
    sampling_rate: int
    audio_channels: int
    audio_samples: int

    @classmethod
    def recorded(cls, record: Mapping[str, Any]) -> SoundFacts | None:
        """The record from a sidecar, or from a seal, whose numbers are strings; None if there is none.

        Raises KeyError, ValueError or TypeError for a record that is damaged.
        """
        if record.get("audio_sha256") is None:
            return None
        numbers = {name: int(record[name]) for name in ("sampling_rate", "audio_channels", "audio_samples")}
        return cls(audio_sha256=str(record["audio_sha256"]), **numbers)


@dataclass(frozen=True, slots=True)
class OtherFile:
    """A file of a clip beside its mp4, with the sha256 of its bytes."""

    content: bytes
    sha256: str

    @classmethod
    def of(cls, content: bytes) -> OtherFile:
        return cls(content, hashlib.sha256(content).hexdigest())

    @property
    def record(self) -> dict[str, str | int]:
        """Digest and size, as sidecars and seals record them."""
        return {"sha256": self.sha256, "bytes": len(self.content)}


@dataclass(frozen=True, slots=True)
class EncodedVideo:
    """The output of a clip's last stage: a finished mp4 and the digest of its frames.

    frames_sha256 is over the uint8 RGB frames in T,H,W,3 order. sound: None if the model makes none.
    poster: a small WebP of the middle frame. also: the files that `output.also` asks for, by ending.
    """

    mp4: bytes
    num_frames: int
    height: int
    width: int
    frames_sha256: str
    mp4_sha256: str
    sound: SoundFacts | None = None
    poster: bytes | None = None
    also: Mapping[str, OtherFile] = field(default_factory=dict[str, OtherFile])


StageOutput = Conditioning | EncodedMedia | ConnectedText | ConditionLatents | Latents | DecodedClip | EncodedVideo
