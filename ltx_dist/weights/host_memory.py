"""Host memory from which weights are copied to a device: page-locked for a GPU, without waste.

Only page-locked memory is copied beside other work and at the speed of the bus. torch's allocator rounds every request
for it up to a power of two (ATen/core/CachingHostAllocator.h: PowerOf2Ceil): T5-XXL taken tensor by tensor would be
13 GB in place of 9.5, and the blocks of 13B twice their size. So slabs of such a size are taken, and tensors cut out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

ALIGNMENT = 256
"""Bytes at which tensors begin in a buffer, as torch's own allocator would place them."""

SMALLEST_SLAB = 256 << 20
ITEMS_A_SLAB = 8
"""A slab holds so many of the largest items, so that what is left over at its end is little."""


@dataclass(frozen=True, slots=True)
class SlabPlan:
    """Where each item lies: (slab, offset); slab_bytes: the size of each slab, a power of two."""

    places: tuple[tuple[int, int], ...]
    slab_bytes: tuple[int, ...]


def plan_slabs(sizes: Sequence[int]) -> SlabPlan:
    """Each item, in order, into the first slab with room; the last ones are cut to what they hold."""
    largest = max(SMALLEST_SLAB, ITEMS_A_SLAB * max(sizes, default=0))
    slab_size = _power_of_two(largest)
    places, used = [], list[int]()
    for size in sizes:
        size = -(-size // ALIGNMENT) * ALIGNMENT
        slab = next((i for i, taken in enumerate(used) if taken + size <= slab_size), len(used))
        if slab == len(used):
            used.append(0)
        places.append((slab, used[slab]))
        used[slab] += size
    return SlabPlan(tuple(places), tuple(_power_of_two(taken) for taken in used))


def _power_of_two(number: int) -> int:
    return 1 << max(number - 1, 0).bit_length()


class HostBuffers:
    """A buffer (uint8) an item, cut from slabs that are allocated when the first of their items is asked for.

    pin: page-locked. Items are moved one by one and their old memory is freed by and by, so that there is no second
    copy of all of them.
    """

    def __init__(self, sizes: Sequence[int], pin: bool) -> None:
        self._sizes = tuple(sizes)
        self._plan = plan_slabs(sizes)
        self._slabs: dict[int, torch.Tensor] = {}
        self._pin = pin

    def __getitem__(self, item: int) -> torch.Tensor:
        slab, start = self._plan.places[item]
        if slab not in self._slabs:
            size = self._plan.slab_bytes[slab]
            self._slabs[slab] = torch.empty(size, dtype=torch.uint8, pin_memory=self._pin)
        return self._slabs[slab][start : start + self._sizes[item]]
