"""Bytes that a stage needs besides its weights, by formula from the clip's size and the model's config.

Each formula is the largest set of activations that diffusers 0.42 and transformers 5 hold at a time, as its docstring
says. `python benchmarks/working_sets.py` counts the same on the real classes at full size and prints both;
tests/estimates/test_memory.py keeps them within 3 % of each other. What a device takes on top is each family's MARGIN.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from ltx_dist.pipeline.conditions import SecondPass, window_places
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import TILE_OVERLAP_FRAMES, TILE_OVERLAP_PIXELS, UNTILED, DecodeTiling

Config = Mapping[str, Any]


def encode_text_bytes(config: Config, max_sequence_length: int, element_bytes: int, prompts: int = 1) -> int:
    """Bytes of T5's activations for this many prompts, each padded to `max_sequence_length` tokens.

    6 tensors of the model's width, and the larger of: 3 copies of the position bias with its mask, or the 4 tensors of
    the gated feed-forward layer.
    """
    tokens = max_sequence_length
    bias = 3 * config["num_heads"] * tokens**2
    feed_forward = 4 * tokens * config["d_ff"]
    return prompts * (6 * tokens * config["d_model"] + max(bias, feed_forward)) * element_bytes


def denoise_bytes(
    config: Config, request: RenderRequest, ratios: tuple[int, int], element_bytes: int, clips: int = 1
) -> int:
    """Bytes of the transformer's activations in one step of a pass that this many clips like `request` share.

    With guidance both prompts run at once. Clips of two passes: the first pass. ratios: pixels and frames per latent.
    """
    guided = request.guidance_scale > 1
    return clips * _step_bytes(config, request, request.first_size, guided, ratios, element_bytes)


def refine_bytes(
    config: Config, upsampler: Config, request: RenderRequest, ratios: tuple[int, int], element_bytes: int
) -> int:
    """Bytes of activations in the second pass: the transformer's, or the upsampler's before it if those are more.

    The upsampler is never tiled. Its peak is in a residual block after the pixels have spread: 4 tensors of its width.
    """
    two, (spatial, temporal) = request.second_pass, ratios
    assert isinstance(two, SecondPass), request.request_id
    volume = ((request.num_frames - 1) // temporal + 1) * (two.height // spatial) * (two.width // spatial)
    upsampling = 4 * element_bytes * upsampler["mid_channels"] * volume
    guided = two.guidance_scale > 1
    return max(upsampling, _step_bytes(config, request, request.decoded_size, guided, ratios, element_bytes))


def denoised_tokens(request: RenderRequest, size: tuple[int, int], ratios: tuple[int, int]) -> int:
    """Number of latent tokens that a pass over `size` (height and width in pixels) works on: the clip's, one latent
    frame more for each image and two for each video that does not begin the clip, and as many again for a reference."""
    spatial, temporal = ratios
    extra = sum(2 if one.is_video else 1 for one in request.conditions if one.frame_index)
    frames = (request.num_frames - 1) // temporal + 1
    if request.windows:
        frames = max(window_frames(request, temporal))
    return (frames * (2 if request.reference else 1) + extra) * (size[0] // spatial) * (size[1] // spatial)


def window_frames(request: RenderRequest, temporal: int) -> list[int]:
    """Latent frames that the transformer works on in each window of a long clip: with the end of the window before, and
    with the first frame, which every window sees."""
    windows = request.windows
    assert windows is not None, request.request_id
    tile, overlap = windows.temporal_tile_size, windows.temporal_overlap
    places = window_places(request.num_frames, tile, overlap, temporal)
    first = len(request.conditions)
    return [end - start + first + (overlap // temporal if start else 0) for start, end in places]


def _step_bytes(
    config: Config,
    request: RenderRequest,
    size: tuple[int, int],
    guided: bool,
    ratios: tuple[int, int],
    element_bytes: int,
) -> int:
    """Bytes of activations in one step. In 16 bits the peak is in the rotary embedding: 5 tensors of its float32 and 6
    of hidden states. In 32 bits it is in the feed-forward: 2 tensors four times as wide and 6 of hidden states. With
    conditions, a reference or windows every token has a timestep of its own, and the modulation, which is one row
    otherwise, 13 more tensors.
    """
    tokens = denoised_tokens(request, size, ratios)
    width = config["num_attention_heads"] * config["attention_head_dim"]
    per_element = 5 * 4 + 6 * 2 if element_bytes == 2 else (2 * 4 + 6) * 4
    if request.seen or request.windows:
        per_element += 13 * element_bytes
    text = request.max_sequence_length * (config["caption_channels"] + width) * element_bytes
    latents = tokens * config["in_channels"] * element_bytes
    return (1 + guided) * (tokens * width * per_element + text + latents)


def encode_image_bytes(config: Config, request: RenderRequest, element_bytes: int) -> int:
    """Bytes of the VAE's encoder at the largest of the clip's media, and of its pixels.

    The peak is in the first block's norm, at a quarter of the height and width: 2 tensors in the VAE's precision, 2 in
    float32 and the residual; in float32, 5 tensors and the frames of a padded copy.
    """
    media = [*request.seen, *([request.video] if request.video else [])]
    frames = max((medium.num_frames for medium in media), default=0)
    # All but the video that the clip begins as are encoded at the second pass's size, too.
    height, width = request.decoded_size if request.seen else request.first_size
    elements = config["block_out_channels"][0] * (height // config["patch_size"]) * (width // config["patch_size"])
    per_frame = max(14 * frames, 22) if element_bytes == 2 else max(20 * frames + 16, 44)
    return per_frame * elements + 3 * frames * height * width * (4 + element_bytes)


def decode_bytes(config: Config, request: RenderRequest, element_bytes: int, tiling: DecodeTiling = UNTILED) -> int:
    """Bytes of the VAE's decoder at one tile, and of the decoded pixels that wait to be blended with it.

    The peak is in the last block's norm, at full resolution: 2 tensors in the VAE's precision and 2 in float32; in
    float32, 4 tensors and the 2 frames of a padded copy. The tensor from the block before is there as well.
    """
    frames, height, width = tile_shape(request, tiling)
    elements_per_frame = (
        config["decoder_block_out_channels"][0]
        // config["upsample_factor"][0]
        * (height // config["patch_size"])
        * (width // config["patch_size"])
    )
    if element_bytes == 2:
        largest = frames * elements_per_frame * (2 * 2 + 2 * 4 + 0.25 * 2)
    else:
        largest = ((4 + 0.25) * frames + 2) * elements_per_frame * 4
    if tiling == UNTILED:
        return int(largest)
    # In time the piece before waits until it is taken; in space the tiles before, to be blended.
    waiting = (tiling.tile_frames is not None) + (tiling.tile_size is not None)
    full_height, full_width = request.decoded_size
    return int(largest) + waiting * 3 * element_bytes * frames * full_height * full_width


def decode_elements(config: Config, request: RenderRequest, tiling: DecodeTiling = UNTILED) -> int:
    """Elements of the largest tensor of the VAE's decoder at one tile: the last block's, padded by two frames."""
    frames, height, width = tile_shape(request, tiling)
    channels = config["decoder_block_out_channels"][0] // config["upsample_factor"][0]
    return channels * (frames + 2) * (height // config["patch_size"]) * (width // config["patch_size"])


def tile_shape(request: RenderRequest, tiling: DecodeTiling) -> tuple[int, int, int]:
    """Frames, height and width of the largest tile; diffusers adds a latent frame to a tile, for blending."""
    frames = request.num_frames if tiling.tile_frames is None else min(request.num_frames, tiling.tile_frames + 1)
    height, width = request.decoded_size
    size = tiling.tile_size or max(height, width)
    return frames, min(height, size), min(width, size)


def largest_to_decode(requests: Iterable[RenderRequest]) -> list[RenderRequest]:
    """The maximal requests: no other is as large in every dimension. Whatever the tiles, one of them needs the most
    bytes to decode.

    `decode_bytes` never falls as frames, the longer or the shorter side grow. Such maxima in three dimensions are found
    by taking requests by falling frames and keeping those found so far as a staircase: rising longer sides, falling
    shorter ones (Kung, Luccio and Preparata 1975).
    """
    found: list[RenderRequest] = []
    longer: list[int] = []
    shorter: list[int] = []

    def size(request: RenderRequest) -> tuple[int, int, int]:
        sides = sorted(request.decoded_size, reverse=True)
        return request.num_frames, sides[0], sides[1]

    for request in sorted(requests, key=size, reverse=True):
        _, long, short = size(request)
        step = bisect_left(longer, long)
        if step < len(longer) and shorter[step] >= short:
            continue
        found.append(request)
        first = step
        while first and shorter[first - 1] <= short:
            first -= 1
        end = step + (step < len(longer) and longer[step] == long)
        longer[first:end], shorter[first:end] = [long], [short]
    return found


@cache
def decoded_frames(frames: int, tile_frames: int | None, ratio: int) -> int:
    """Latent frames decoded in tiles, of this many in all; overlaps count as often as they are decoded."""
    return sum(_tile_lengths(frames, tile_frames and tile_frames // ratio, TILE_OVERLAP_FRAMES // ratio, 1))


@cache
def decoded_side(side: int, tile_size: int | None, ratio: int) -> int:
    """Latent rows or columns decoded in tiles, of this many in all; overlaps count as often as they are decoded."""
    return sum(_tile_lengths(side, tile_size and tile_size // ratio, TILE_OVERLAP_PIXELS // ratio, 0))


def pads_by_reflection(vae: Mapping[str, Any]) -> bool:
    """Whether a decoder with this config does, as LTX-2.0's does: it cannot decode a tile that is one latent wide."""
    return vae.get("decoder_spatial_padding_mode") == "reflect"


def tile_stride(tile_size: int, side: int, ratio: int, reflects: bool) -> int:
    """Stride of the tiles, in pixels, along a side of this many latents. Raises ValueError if no stride suits.

    A decoder that pads by reflection gets tiles that overlap by more where the last would be of one latent, which costs
    time, or else by one latent only. From 256 px on, this suits every side below 421 latents.
    """
    usual, tile = (tile_size - TILE_OVERLAP_PIXELS) // ratio, tile_size // ratio
    if not reflects:
        return usual * ratio
    for stride in (*range(usual, 1, -1), tile - 1):
        if (side - 1) % stride:
            return stride * ratio
    raise ValueError(
        f"decode.tile_size: {tile_size} cuts {side * ratio} px so that a tile of one latent is left, which this "
        "decoder cannot pad; use 256 or more"
    )


def _tile_lengths(length: int, tile: int | None, overlap: int, extra: int) -> Iterator[int]:
    if tile is None or length <= tile:
        yield length
        return
    for start in range(0, length, tile - overlap):
        yield min(length - start, tile + extra)
