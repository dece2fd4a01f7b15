"""Decoding in tiles: bit for bit what diffusers' own tiled decode gives, and never more than a tile at a time."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch

from ltx_dist.models.ltx_video.tiling import decode_in_tiles
from ltx_dist.pipeline.storage import TILE_OVERLAP_FRAMES, TILE_OVERLAP_PIXELS, UNTILED, DecodeTiling

TILINGS = [
    DecodeTiling(None, 16),
    DecodeTiling(96, None),
    DecodeTiling(96, 24),
    DecodeTiling(128, 32),
    DecodeTiling(256, 64),  # larger than the clip: nothing is cut
]


def oracle(vae: Any, latents: torch.Tensor, timestep: torch.Tensor | None, tiling: DecodeTiling) -> torch.Tensor:
    """diffusers' own tiled decode of the whole clip. A tile that is larger than the clip does not cut it."""
    size, frames = tiling.tile_size or 1 << 20, tiling.tile_frames or 1 << 20
    vae.enable_tiling(
        size, size, frames, size - TILE_OVERLAP_PIXELS, size - TILE_OVERLAP_PIXELS, frames - TILE_OVERLAP_FRAMES
    )
    vae.use_framewise_decoding = True
    return vae.decode(latents, timestep, return_dict=False)[0]


@pytest.mark.parametrize("tiling", TILINGS, ids=str)
@pytest.mark.parametrize("version", ["0.9.0", "0.9.1", "0.9.5"])
def test_tiles_are_those_of_diffusers(version: str, tiling: DecodeTiling) -> None:
    num_latents = 5 if tiling.tile_frames == 16 else 4
    vae: Any = tiny._random_vae(version).eval()
    latents = torch.randn(1, tiny.LATENT_CHANNELS, num_latents, 3, 4, generator=torch.Generator().manual_seed(0))
    timestep = torch.tensor([0.05]) if vae.config.timestep_conditioning else None
    with torch.inference_mode():
        torch.manual_seed(1)  # 0.9.1 draws from the global generator
        expected = oracle(vae, latents, timestep, tiling)
        torch.manual_seed(1)
        pieces = list(decode_in_tiles(vae, latents, timestep, tiling))
    assert torch.equal(torch.cat(pieces, dim=2), expected)
    if tiling.tile_frames and tiling.tile_frames < 8 * num_latents:
        assert len(pieces) > 1 and max(piece.shape[2] for piece in pieces) <= tiling.tile_frames + 1


def test_a_tiling_does_not_outlive_its_clip() -> None:
    vae: Any = tiny._random_vae("0.9.5").eval()
    latents = torch.randn(1, tiny.LATENT_CHANNELS, 4, 4, 4)
    timestep = torch.tensor([0.05])
    with torch.inference_mode():
        whole = vae.decode(latents, timestep, return_dict=False)[0]
        tiled = torch.cat(list(decode_in_tiles(vae, latents, timestep, DecodeTiling(96, 16))), dim=2)
        again = torch.cat(list(decode_in_tiles(vae, latents, timestep, UNTILED)), dim=2)
    assert torch.equal(again, whole) and not torch.equal(tiled, whole)


@pytest.mark.parametrize("tiling", TILINGS, ids=str)
@pytest.mark.parametrize("num_latents", [2, 3, 4])
def test_what_a_tiling_comes_to_for_a_clip_gives_the_same_pixels(tiling: DecodeTiling, num_latents: int) -> None:
    vae: Any = tiny._random_vae("0.9.5").eval()
    latents = torch.randn(1, tiny.LATENT_CHANNELS, num_latents, 3, 4, generator=torch.Generator().manual_seed(0))
    ratio = vae.temporal_compression_ratio
    space, frames = vae.spatial_compression_ratio, (num_latents - 1) * ratio + 1
    comes_to = tiling.of(3 * space, 4 * space, frames, ratio)
    with torch.inference_mode():
        pieces = list(decode_in_tiles(vae, latents, torch.tensor([0.05]), tiling))
        same = list(decode_in_tiles(vae, latents, torch.tensor([0.05]), comes_to))
        whole = vae.decode(latents, torch.tensor([0.05]), return_dict=False)[0] if comes_to == UNTILED else None
    assert torch.equal(torch.cat(pieces, dim=2), torch.cat(same, dim=2))
    assert whole is None or torch.equal(whole, torch.cat(pieces, dim=2))
    assert comes_to == tiling or comes_to.tile_size is None or comes_to.tile_frames is None
