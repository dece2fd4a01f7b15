"""torch's CUDA caching allocator in Python: how much a device reserves while the tensors of a stage come and go.

The rules are those of c10/cuda/CUDACachingAllocator.cpp. Requests are rounded to 512 bytes. Those of up to 1 MiB come
from segments of 2 MiB, those below 10 MiB from segments of 20 MiB, and all others from a segment of their own, rounded
to 2 MiB. The smallest free block that is large enough is taken, and split if enough is left. Neighbouring free blocks
are merged again. If the device has no memory left, segments that are entirely free are returned, and the request is
repeated once. Streams (weights and activations are allocated on one), `expandable_segments` and CUDA graphs are not
simulated.
"""

from __future__ import annotations

import bisect
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

KIB, MIB = 1 << 10, 1 << 20
SMALLEST = 512
SMALL = MIB
SMALL_SEGMENT, LARGE_SEGMENT, OWN_SEGMENT, ROUND_SEGMENT = 2 * MIB, 20 * MIB, 10 * MIB, 2 * MIB


class Block:
    """Part of a segment. before, after: its neighbours there."""

    __slots__ = ("after", "before", "is_free", "is_small", "number", "size")
    _numbers = count()

    def __init__(self, size: int, is_small: bool) -> None:
        self.size, self.is_small, self.is_free = size, is_small, False
        self.number = next(self._numbers)
        self.before: Block | None = None
        self.after: Block | None = None


class CachingAllocator:
    """allocated, reserved: bytes of the blocks in use, and of all segments, with their peaks since `reset_peak`.

    capacity: bytes that the device has for this allocator; None for no limit. `retries` counts requests that were
    repeated after free segments had been returned, and `refusals` those that were refused even then.
    """

    def __init__(self, capacity: int | None = None) -> None:
        self.capacity = capacity
        self.allocated = self.reserved = self.peak_allocated = self.peak_reserved = self.retries = self.refusals = 0
        self._free: dict[bool, list[tuple[int, int, Block]]] = {True: [], False: []}

    def malloc(self, size: int) -> Block:
        """Raises torch.OutOfMemoryError."""
        size = rounded(size)
        is_small = size <= SMALL
        block = self._found(size, is_small) or self._new_segment(size, is_small)
        rest = block.size - size
        if rest >= SMALLEST if is_small else rest > SMALL:
            left = Block(rest, is_small)
            left.before, left.after = block, block.after
            if block.after is not None:
                block.after.before = left
            block.after, block.size = left, size
            self._insert(left)
        self.allocated += block.size
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        return block

    def free(self, block: Block) -> None:
        assert not block.is_free
        self.allocated -= block.size
        for other in (block.before, block.after):
            if other is not None and other.is_free:
                self._remove(other)
                first, second = (other, block) if other is block.before else (block, other)
                first.size += second.size
                first.after = second.after
                if second.after is not None:
                    second.after.before = first
                block = first
        self._insert(block)

    def empty_cache(self) -> None:
        """Return every segment that is entirely free."""
        for pool in self._free.values():
            for _, _, block in [*pool]:
                if block.before is None and block.after is None:
                    self._remove(block)
                    self.reserved -= block.size

    def reset_peak(self) -> None:
        self.peak_allocated, self.peak_reserved = self.allocated, self.reserved

    def _found(self, size: int, is_small: bool) -> Block | None:
        pool = self._free[is_small]
        place = bisect.bisect_left(pool, (size, -1))
        if place == len(pool):
            return None
        block = pool[place][2]
        self._remove(block)
        return block

    def _new_segment(self, size: int, is_small: bool) -> Block:
        segment = segment_of(size)
        if self.capacity is not None and self.reserved + segment > self.capacity:
            self.empty_cache()
            self.retries += 1
            if self.reserved + segment > self.capacity:
                self.refusals += 1
                raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size / MIB:.2f} MiB (simulated)")
        self.reserved += segment
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        return Block(segment, is_small)

    def _insert(self, block: Block) -> None:
        block.is_free = True
        bisect.insort(self._free[block.is_small], (block.size, block.number, block))

    def _remove(self, block: Block) -> None:
        block.is_free = False
        pool = self._free[block.is_small]
        del pool[bisect.bisect_left(pool, (block.size, block.number))]


def rounded(size: int) -> int:
    return max(SMALLEST, -(-size // SMALLEST) * SMALLEST)


def segment_of(size: int) -> int:
    """Bytes that the device is asked for when a request of this (rounded) size needs a new segment."""
    if size <= SMALL:
        return SMALL_SEGMENT
    return LARGE_SEGMENT if size < OWN_SEGMENT else -(-size // ROUND_SEGMENT) * ROUND_SEGMENT


class Allocations(TorchDispatchMode):
    """Takes memory from the allocator for every storage made inside on a device of `kind`, as long as it lives.

    workspace: bytes that an operator takes besides its results while it runs, given its name, inputs and result.
    """

    def __init__(self, allocator: CachingAllocator, kind: str = "cuda", workspace: Any = None) -> None:
        super().__init__()
        self._allocator = allocator
        self._kind = kind
        self._workspace = workspace
        self._known: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        known = {id(leaf.untyped_storage()) for leaf in inputs}
        result = func(*args, **(kwargs or {}))
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        for leaf in made:
            if leaf.device.type == self._kind and id(leaf.untyped_storage()) not in known:
                self.take(leaf.untyped_storage())
        if self._workspace is not None and made and made[0].device.type == self._kind:
            size = self._workspace(func._schema.name.split("::")[1], inputs, made)
            if size:
                self._allocator.free(self._allocator.malloc(size))
        return result

    def take(self, storage: torch.UntypedStorage) -> None:
        key = id(storage)
        if key in self._known:
            return
        block = self._allocator.malloc(storage.nbytes())

        def end(_: Any) -> None:
            self._allocator.free(block)
            self._known.pop(key, None)

        self._known[key] = weakref.ref(storage, end)


def convolution_workspace(name: str, inputs: list[torch.Tensor], made: list[torch.Tensor]) -> int:
    """The most that cuDNN's convolutions in 16 bits take: copies of the input and the output in its own layout."""
    if name not in ("convolution", "conv3d") or made[0].element_size() != 2:
        return 0
    return inputs[0].nbytes + inputs[1].nbytes + made[0].nbytes


@contextmanager
def allocations(allocator: CachingAllocator, kind: str = "cuda", workspace: Any = None) -> Iterator[Allocations]:
    with Allocations(allocator, kind, workspace) as mode:
        yield mode
