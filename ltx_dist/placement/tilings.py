"""The tilings that a config allows, and the cost of each."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Literal

from ltx_dist.estimates import working_sets
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import TILE_OVERLAP_FRAMES, TILE_OVERLAP_PIXELS, DecodeTiling

TileLength = int | Literal["auto", "off"]

SMALLEST_TILE_PIXELS = 256
SMALLEST_TILE_FRAMES = 16
"""Smallest tile: in smaller ones more than half is overlap; 16 frames cost 2.8 times the work of one piece."""


class TilingCosts:
    """The work of decoding these requests in tiles, relative to one piece: call it with a tiling, such as for a sort.

    It is the mean ratio of decoded to actual latents, weighted by pixels. What tiles add in space is summed
    once per tile size and number of frames, so that hundreds of tilings do not look at every request again.
    """

    def __init__(self, shapes: Iterable[RenderRequest], ratios: tuple[int, int]) -> None:
        self._spatial, self._temporal = ratios
        self._sides: defaultdict[int, Counter[tuple[int, int]]] = defaultdict(Counter)
        for request in shapes:
            frames = (request.num_frames - 1) // self._temporal + 1
            height, width = request.decoded_size
            self._sides[frames][height // self._spatial, width // self._spatial] += 1
        self._areas: dict[int | None, dict[int, int]] = {}
        self._pixels = sum(
            self._pixels_per_latent_frame(frames) * frames * area for frames, area in self._area(None).items()
        )

    def __call__(self, tiling: DecodeTiling) -> float:
        whole, tiled = self._area(None), self._area(tiling.tile_size)
        more = 0.0
        for frames, area in tiled.items():
            decoded = working_sets.decoded_frames(frames, tiling.tile_frames, self._temporal) * area
            more += self._pixels_per_latent_frame(frames) * (decoded - frames * whole[frames])
        return 1.0 + (more / self._pixels if more else 0.0)

    def _area(self, tile_size: int | None) -> dict[int, int]:
        """Latents that are decoded per latent frame, summed over the requests of one length; by length in latent
        frames."""
        if tile_size not in self._areas:
            side = partial(working_sets.decoded_side, tile_size=tile_size, ratio=self._spatial)
            self._areas[tile_size] = {
                frames: sum(number * side(height) * side(width) for (height, width), number in sides.items())
                for frames, sides in self._sides.items()
            }
        return self._areas[tile_size]

    def _pixels_per_latent_frame(self, frames: int) -> float:
        """Mean pixels per latent in a clip of this many latent frames: the first is one frame, each other `ratio`
        frames."""
        return ((frames - 1) * self._temporal + 1) * self._spatial**2 / frames


def candidate_tilings(
    tile_size: TileLength,
    tile_frames: TileLength,
    shapes: Sequence[RenderRequest],
    ratios: tuple[int, int],
) -> list[DecodeTiling]:
    """Every tiling that the config allows, cheapest first; among equals, the one with larger pieces.

    Raises ValueError for a tile that is not of whole latents or not larger than the overlap of two.
    """
    spatial, temporal = ratios
    widest = max(max(request.decoded_size) for request in shapes)
    longest = max(request.num_frames for request in shapes)
    sizes = _choices("tile_size", tile_size, 2 * spatial, SMALLEST_TILE_PIXELS, widest, spatial)
    frames = _choices("tile_frames", tile_frames, temporal, SMALLEST_TILE_FRAMES, longest, temporal)
    tilings = [DecodeTiling(size, length) for size in sizes for length in frames]
    return sorted(tilings, key=TilingCosts(shapes, ratios))


def check_strides(tile_size: int, shapes: Iterable[RenderRequest], ratio: int) -> None:
    """Raises ValueError if a decoder that pads by reflection cannot decode one of these in such tiles."""
    cut = {request.decoded_size for request in shapes if max(request.decoded_size) > tile_size}
    for side in sorted({side for sides in cut for side in sides}):
        working_sets.tile_stride(tile_size, side // ratio, ratio, reflects=True)


def _choices(name: str, asked: TileLength, step: int, smallest: int, end: int, ratio: int) -> list[int | None]:
    """The lengths of a tile to try, in pixels or frames. None, for no cut, comes first: at equal cost the larger piece
    is taken."""
    if asked == "off":
        return [None]
    if asked == "auto":
        return [None, *range((end - 1) // step * step, smallest - 1, -step)]
    overlap = {"tile_size": TILE_OVERLAP_PIXELS, "tile_frames": TILE_OVERLAP_FRAMES}[name]
    if asked % ratio or asked <= overlap:
        raise ValueError(f"decode.{name}: {asked} is not a valid tile; use a multiple of {ratio} above {overlap}")
    return [asked]
