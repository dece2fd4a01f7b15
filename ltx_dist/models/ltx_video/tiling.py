"""Decodes latents one temporal tile at a time, so that only one tile of pixels is in memory.

Equal bit for bit to diffusers' tiled decode (`enable_tiling` and `use_framewise_decoding` of AutoencoderKLLTXVideo),
which keeps all of a clip's pixels until the last tile is done. Tiles in space are left to diffusers; the loop over time
is here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ltx_dist.estimates.working_sets import pads_by_reflection, tile_stride
from ltx_dist.pipeline.storage import TILE_OVERLAP_FRAMES, DecodeTiling


def decode_in_tiles(
    vae: Any, latents: torch.Tensor, timestep: torch.Tensor | None, tiling: DecodeTiling
) -> Iterator[torch.Tensor]:
    """(1, 3, frames, H, W) pieces of the clip, in order. `latents`: (1, C, F, H, W); all on the VAE's device.

    Raises ValueError if the decoder cannot decode a clip of this size in such tiles.
    """
    _cut_in_space(vae, tiling.tile_size, latents.shape[-2:])
    ratio = vae.temporal_compression_ratio
    if tiling.tile_frames is None or latents.shape[2] <= tiling.tile_frames // ratio:
        yield vae.decode(latents, timestep, return_dict=False)[0]
        return
    missing = (latents.shape[2] - 1) * ratio + 1
    stride = tiling.tile_frames - TILE_OVERLAP_FRAMES
    before = None
    for start in range(0, latents.shape[2], stride // ratio):
        # One latent frame more than the tile, as the first frame of a tile has no past to be decoded from.
        tile = latents[:, :, start : start + tiling.tile_frames // ratio + 1]
        pixels = vae.decode(tile, timestep, return_dict=False)[0]
        if before is not None:
            pixels = vae.blend_t(before, pixels[:, :, :-1], TILE_OVERLAP_FRAMES)
        done = pixels[:, :, : min(missing, stride + (before is None))]
        before = pixels[:, :, -TILE_OVERLAP_FRAMES:].clone()
        del pixels
        missing -= done.shape[2]
        yield done
        del done
    assert missing == 0, missing


def _cut_in_space(vae: Any, tile_size: int | None, sides: Sequence[int]) -> None:
    """Set the VAE's tiles in height and width; none for a clip that fits into one. sides: in latents."""
    vae.use_framewise_decoding = False
    if tile_size is None or max(sides) * vae.spatial_compression_ratio <= tile_size:
        vae.use_tiling = False
        return
    height, width = sides
    ratio, reflects = vae.spatial_compression_ratio, pads_by_reflection(vae.config)
    vae.enable_tiling(
        tile_sample_min_height=tile_size,
        tile_sample_min_width=tile_size,
        tile_sample_stride_height=tile_stride(tile_size, height, ratio, reflects),
        tile_sample_stride_width=tile_stride(tile_size, width, ratio, reflects),
    )
