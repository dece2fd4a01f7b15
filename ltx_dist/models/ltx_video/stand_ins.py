"""Stand-ins in diffusers' pipelines for a VAE that is on another worker and has already encoded all media.

The pipelines use them like a VAE: they draw each posterior's sample at the usual place, with the clip's generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.pipeline.conditions import Condition


@dataclass(frozen=True)
class VaeGeometry:
    """Takes the place of the VAE in diffusers' pipelines.

    Without a VAE `LTXPipeline` assumes compression 32/8, whatever the checkpoint, and `LTXConditionPipeline` fails
    because it reads `vae.dtype`. Before decoding, both read nothing but these three attributes.
    """

    spatial_compression_ratio: int
    temporal_compression_ratio: int
    dtype: torch.dtype


class EncodedVae:
    """Takes the place of a pipeline's VAE up to decoding: geometry, statistics, and `encode` for encoded media."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        latents_mean: torch.Tensor,
        latents_std: torch.Tensor,
        scaling_factor: float = 1.0,
    ) -> None:
        self.spatial_compression_ratio = checkpoint.spatial_compression_ratio
        self.temporal_compression_ratio = checkpoint.temporal_compression_ratio
        self.dtype = latents_mean.dtype
        self.latents_mean, self.latents_std = latents_mean, latents_std
        self.config = SimpleNamespace(scaling_factor=scaling_factor)
        self._device = device
        self._waiting: list[torch.Tensor] = []

    def expect(self, moments: Sequence[torch.Tensor]) -> None:
        """Set the moments whose posteriors the next calls of `encode` return, in this order."""
        self._waiting = list(moments)

    def encode(self, pixels: torch.Tensor) -> AutoencoderKLOutput:
        """The posterior of the next expected medium, whatever `pixels` are: C means and C equal log variances."""
        moments = self._waiting.pop(0).to(self._device)
        channels = moments.shape[1] - 1
        return AutoencoderKLOutput(
            latent_dist=DiagonalGaussianDistribution(
                torch.cat([moments[:, :channels], moments[:, channels:].expand(-1, channels, -1, -1, -1)], dim=1)
            )
        )


class NoPixels:
    """Takes the place of a pipeline's video processor: returns empty tensors with as many frames as the pixels have."""

    def preprocess(self, image: Any, height: int, width: int) -> torch.Tensor:
        return torch.empty(1, 1, 1, 1)

    def preprocess_video(self, frames: Sequence[Any], height: int, width: int) -> torch.Tensor:
        return torch.empty(1, 1, len(frames), 1, 1)


def empty_conditions(conditions: Sequence[Condition]) -> list[LTXVideoCondition]:
    """diffusers' conditions without their pixels; in place of a video, a sequence whose length `NoPixels` reads."""
    make: Any = LTXVideoCondition  # declared to hold pictures
    return [
        make(
            image=None if condition.is_video else "",
            video=[None] * condition.num_frames if condition.is_video else None,
            frame_index=condition.frame_index,
            strength=condition.strength,
        )
        for condition in conditions
    ]
