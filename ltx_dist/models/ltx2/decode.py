"""Latents to frames and sound: the tail of diffusers' LTX-2 pipelines, in its order of casts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import diffusers
import numpy as np
import torch
from diffusers.video_processor import VideoProcessor

from ltx_dist.models.finite import check_finite
from ltx_dist.models.frames import frames_of
from ltx_dist.models.ltx_video.tiling import decode_in_tiles
from ltx_dist.pipeline.payloads import DecodedClip, Sound, SoundLatents

if TYPE_CHECKING:
    from ltx_dist.checkpoints.checkpoint import Checkpoint
    from ltx_dist.models.family import StageContext
    from ltx_dist.pipeline.request import RenderRequest
    from ltx_dist.pipeline.storage import DecodeTiling


class Decode:
    """Runs the decoders of both VAEs and the vocoder. None of them draws noise."""

    def __init__(
        self, components: Mapping[str, Any], checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._vae = components["vae"]
        self._audio_vae = components["audio_vae"]
        self._vocoder = components["vocoder"]
        self._device = device
        self._processor = VideoProcessor(vae_scale_factor=checkpoint.spatial_compression_ratio)

    def run(
        self, requests: Sequence[RenderRequest], inputs: Sequence[Mapping[str, Any]], context: StageContext
    ) -> list[DecodedClip]:
        """One clip per request: its sound is decoded already, its frames are decoded as they are consumed."""
        clips: list[DecodedClip] = []
        for given in inputs:
            latents: SoundLatents = given.get("refine") or given["denoise"]
            sound = Sound(self._waveform(latents), int(self._vocoder.config.output_sampling_rate))
            clips.append(DecodedClip(self._frames(latents, context.tiling), latents.sha256(), sound))
        return clips

    def _waveform(self, latents: SoundLatents) -> np.ndarray:
        """(channels, samples) float32."""
        samples = latents.audio_latents.to(self._device, self._audio_vae.dtype)
        spectrogram = self._audio_vae.decode(samples, return_dict=False)[0]
        waveform = self._vocoder(spectrogram)[0].float().cpu()
        check_finite(waveform, "the sound is", self._audio_vae.dtype, "model.precision")
        return waveform.numpy()

    def _frames(self, latents: SoundLatents, tiling: DecodeTiling) -> Iterator[np.ndarray]:
        """(height, width, 3) uint8 RGB, piece by piece. Raises FloatingPointError for pixels that are not finite."""
        vae = self._vae
        samples = latents.latents.to(self._device, getattr(torch, latents.embeds_dtype))
        samples = diffusers.LTX2Pipeline._denormalize_latents(
            samples, vae.latents_mean, vae.latents_std, vae.config.scaling_factor
        )
        for piece in decode_in_tiles(vae, samples.to(vae.dtype), None, tiling):
            yield from frames_of(piece, self._processor)
