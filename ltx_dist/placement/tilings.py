"""The ways to decode in pieces that a config allows, and what each costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ltx_dist.estimates import working_sets
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import TILE_OVERLAP_FRAMES, TILE_OVERLAP_PIXELS, UNTILED, DecodeTiling

TileLength = int | Literal["auto", "off"]

SMALLEST_TILE_PIXELS = 256
SMALLEST_TILE_FRAMES = 16
"""Smaller tiles are overlap more than half: 16 frames cost 2.8 times the work of one piece."""


def batch_tiling_cost(tiling: DecodeTiling, shapes: Sequence[RenderRequest], ratios: tuple[int, int]) -> float:
    """The work of decoding these requests in tiles over that in one piece."""
    if tiling == UNTILED or not shapes:
        return 1.0
    sizes = [request.num_frames * request.height * request.width for request in shapes]
    costs = [working_sets.tiling_cost(request, tiling, ratios) for request in shapes]
    return sum(size * cost for size, cost in zip(sizes, costs, strict=True)) / sum(sizes)


def candidate_tilings(
    tile_size: TileLength,
    tile_frames: TileLength,
    shapes: Sequence[RenderRequest],
    ratios: tuple[int, int],
) -> list[DecodeTiling]:
    """Every tiling that the config allows, cheapest first and among equals the one with more of the clip in a piece.

    Raises ValueError for a tile that is not of whole latents or not larger than the overlap of two.
    """
    spatial, temporal = ratios
    widest = max(max(request.height, request.width) for request in shapes)
    longest = max(request.num_frames for request in shapes)
    sizes = _choices("tile_size", tile_size, 2 * spatial, SMALLEST_TILE_PIXELS, widest, spatial)
    frames = _choices("tile_frames", tile_frames, temporal, SMALLEST_TILE_FRAMES, longest, temporal)
    tilings = [DecodeTiling(size, length) for size in sizes for length in frames]
    return sorted(tilings, key=lambda tiling: batch_tiling_cost(tiling, shapes, ratios))


def _choices(name: str, asked: TileLength, step: int, smallest: int, end: int, ratio: int) -> list[int | None]:
    """None, for no cut, comes first: of two that cost the same the larger piece is taken."""
    if asked == "off":
        return [None]
    if asked == "auto":
        return [None, *range((end - 1) // step * step, smallest - 1, -step)]
    overlap = {"tile_size": TILE_OVERLAP_PIXELS, "tile_frames": TILE_OVERLAP_FRAMES}[name]
    if asked % ratio or asked <= overlap:
        raise ValueError(f"decode.{name}: {asked} is no tile; use a multiple of {ratio} above {overlap}")
    return [asked]
