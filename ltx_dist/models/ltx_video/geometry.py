"""The properties of a VAE that a denoise worker needs without loading it."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class VaeGeometry:
    """Takes the place of the VAE in diffusers' pipelines.

    Without a VAE `LTXPipeline` assumes compression 32/8, whatever the checkpoint, and `LTXConditionPipeline` fails
    because it reads `vae.dtype`. Both read nothing but these three before decoding.
    """

    spatial_compression_ratio: int
    temporal_compression_ratio: int
    dtype: torch.dtype
