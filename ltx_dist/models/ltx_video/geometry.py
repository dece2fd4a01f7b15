"""The little that a denoise worker needs of a VAE it does not load."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class VaeGeometry:
    """Stands where diffusers' pipelines keep their VAE.

    Without a VAE `LTXPipeline` assumes compression 32/8, whatever the checkpoint, and `LTXConditionPipeline` fails
    because it reads `vae.dtype`. Both read nothing but these three before decoding.
    """

    spatial_compression_ratio: int
    temporal_compression_ratio: int
    dtype: torch.dtype
