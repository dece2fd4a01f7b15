"""Host memory that weights are copied from: page-locked for a GPU, without waste.

Only page-locked memory is copied at the speed of the bus and while the GPU computes. torch's allocator rounds every
request for it up to a power of two (ATen/core/CachingHostAllocator.h: PowerOf2Ceil): tensor by tensor, T5-XXL would
take 13 GB instead of 9.5, and the blocks of 13B twice their size. So slabs of such sizes are cut into buffers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

import torch

from ltx_dist.weights.numa import running_on

ALIGNMENT = 256
"""Alignment of tensors in a buffer, in bytes, as in torch's own allocator."""

SMALLEST_SLAB = 256 << 20
ITEMS_A_SLAB = 8
"""A slab holds at least this many of the largest items, so that little is left over at its end."""


@dataclass(frozen=True, slots=True)
class SlabPlan:
    """The place of each item: (slab, offset); slab_bytes: the size of each slab, a power of two."""

    places: tuple[tuple[int, int], ...]
    slab_bytes: tuple[int, ...]


def plan_slabs(sizes: Sequence[int], items_a_slab: int = ITEMS_A_SLAB) -> SlabPlan:
    """Place each item, in order, in the first slab with room. The last slabs are no larger than their content needs."""
    largest = max(SMALLEST_SLAB, items_a_slab * max(sizes, default=0))
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


LOCKED_GBS, PAGEABLE_GBS = 25, 4
"""Copies to a device over PCIe 4 x16 from page-locked memory, and from ordinary memory by way of the driver's own
small locked buffer (an estimate; `benchmarks/gpu.py --only link` measures both)."""

NOT_LOCKED = (
    "this machine does not give enough page-locked memory, so weights are copied from pageable memory at some "
    f"{PAGEABLE_GBS} GB/s instead of {LOCKED_GBS}, and not while other work runs; "
    "`ltx-dist doctor` shows how much it gives"
)

Report = Callable[[str], None]
"""Called with a line for users."""


def to_log(line: str) -> None:
    """Logs to standard error, unless the program has configured logging."""
    logging.getLogger(__name__).warning(line)


class HostBuffers:
    """One buffer (uint8) per item, cut from slabs that are allocated when their first item is requested.

    Items are requested in order and moved one by one, each freeing its old memory, so that there is never a second
    copy of all of them.

    pin: page-lock them. If a large slab is refused, smaller ones are tried; if those are refused, too, the rest is
    ordinary memory, which is reported once: WSL2 gives a process 1 GB or less of page-locked memory, however much
    the machine has. near: the CPUs whose memory is to be used, as of `cpus_near`.
    """

    def __init__(
        self, sizes: Sequence[int], pin: bool, report: Report = to_log, near: Set[int] = frozenset[int]()
    ) -> None:
        self._sizes = tuple(sizes)
        self._pin = pin
        self._near = near
        self._report = report
        self._first = 0
        self._plan = plan_slabs(sizes)
        self._slabs: dict[int, torch.Tensor] = {}

    @property
    def is_locked(self) -> bool:
        """Whether all buffers so far are page-locked."""
        return self._pin

    def __getitem__(self, item: int) -> torch.Tensor:
        slab, start = self._plan.places[item - self._first]
        if slab not in self._slabs:
            try:
                self._slabs[slab] = self._empty(self._plan.slab_bytes[slab])
            except RuntimeError:
                if not self._pin:  # pageable memory: the host has no more
                    raise
                self._retry_from(item)
                return self[item]
        return self._slabs[slab][start : start + self._sizes[item]]

    def _empty(self, size: int) -> torch.Tensor:
        with running_on(self._near):
            return torch.empty(size, dtype=torch.uint8, pin_memory=self._pin)

    def _retry_from(self, item: int) -> None:
        """Plan this and later items again: in slabs of one item, or not page-locked if slabs hold one item already."""
        smaller = plan_slabs(self._sizes[item:], items_a_slab=1)
        slab, _ = self._plan.places[item - self._first]
        if max(smaller.slab_bytes) >= self._plan.slab_bytes[slab]:
            self._pin = False
            self._report(NOT_LOCKED)
        self._first, self._plan, self._slabs = item, smaller, {}


def return_locked_memory(device: torch.device) -> None:
    """Return unused page-locked memory to the system, which torch's allocator never does by itself."""
    # Only in builds with CUDA; torch has no public name for it.
    if device.type == "cuda" and (empty := getattr(torch._C, "_host_emptyCache", None)) is not None:
        empty()
