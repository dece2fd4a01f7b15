"""Describes the memory of a model family's weights and stages on a device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import DecodeTiling
from ltx_dist.pipeline.worker import Device

STREAM_INSTEAD = "set model.text_encoder_quantization=none, with which a GPU streams the text encoder"
"""The remedy where a quantised text encoder does not fit."""


@dataclass(frozen=True, slots=True)
class StageMemory:
    """Activations of one stage.

    working_set: bytes for this many requests like this one in a pass, in these tiles, as counted on the real classes.
    margin: by device, the factor by which more is held: blocks of the caching allocator, and workspaces of kernels.
    elements: number of elements of its largest tensor, if that may be too large for a device's kernels to index.
    remedy: what to change where the stage does not fit. is_tiled: its bytes depend on the tiles. largest: picks a few
    requests, one of which needs the most bytes, whatever the tiles.
    """

    working_set: Callable[[RenderRequest, DecodeTiling, int], int]
    margin: Mapping[Device, float]
    remedy: str
    is_tiled: bool = False
    elements: Callable[[RenderRequest, DecodeTiling], int] | None = None
    largest: Callable[[Iterable[RenderRequest]], Sequence[RenderRequest]] = tuple


@dataclass(frozen=True, slots=True)
class WeightBytes:
    """Bytes of a component's weights on the device.

    block: bytes of one of its num_blocks equal blocks, in which it can be streamed; num_blocks is 0 if it cannot.
    cast_layer: bytes of its largest layer in the dtype that it computes in, if layers are cast to that one by one.
    """

    total: int
    block: int = 0
    num_blocks: int = 0
    cast_layer: int = 0
