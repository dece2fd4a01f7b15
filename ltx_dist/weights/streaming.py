"""Streams a module larger than its device: blocks pass through two buffers there, one filled while the other computes.

diffusers' group offload does the same at 10 GB/s on a bus of 25 GB/s. Its hooks wait on the host for the previous copy
(`stream.synchronize()`) and, without `record_stream`, for all computation at every block that is offloaded; they copy
each tensor separately into newly allocated memory; and the first group of a pass is copied while nothing computes.
Here a block is one copy of one pinned buffer, events order the two streams so that the host never waits, and the first
block of the next pass is copied right after the last block of this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch

from ltx_dist.weights.flat import FlatLayout, empty_on
from ltx_dist.weights.host_memory import HostBuffers, Report, to_log
from ltx_dist.weights.numa import cpus_near
from ltx_dist.weights.residency import moved


class StreamedModule:
    """A module whose `blocks` are on the device two at a time; everything else stays there from `upload` to `evict`.

    Blocks should be called in order, as in transformers and text encoders; another order is correct but slow.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        blocks: Sequence[torch.nn.Module],
        device: torch.device,
        report: Report = to_log,
    ) -> None:
        self._device = device
        self._blocks = [_FlatBlock(block) for block in blocks]
        streamed = {id(tensor) for block in self._blocks for tensor in block.tensors}
        everything = [*module.parameters(), *module.buffers()]
        self._around = [tensor for tensor in everything if id(tensor) not in streamed]
        sizes = [*(block.num_bytes for block in self._blocks), *(tensor.nbytes for tensor in self._around)]
        buffers = HostBuffers(sizes, pin=device.type == "cuda", report=report, near=cpus_near(device))
        for index, block in enumerate(self._blocks):
            block.move_to(buffers[index])
        for index, tensor in enumerate(self._around, len(self._blocks)):
            tensor.data = moved(tensor.data, buffers[index])
        self._around_host = [tensor.data for tensor in self._around]
        self._copying = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._slots: list[_Slot] = []
        self._slot_of: dict[int, _Slot] = {}
        self._turn = 0
        self.is_resident = False
        self.uploads = 0
        self.copied_bytes = 0
        self._hooks: list[Any] = []
        for index, block in enumerate(blocks):
            self._hooks.append(block.register_forward_pre_hook(lambda *_, index=index: self._before(index)))
            self._hooks.append(block.register_forward_hook(lambda *_, index=index: self._after(index)))

    @property
    def num_bytes(self) -> int:
        """Bytes on the device at a time."""
        around = sum(tensor.nbytes for tensor in self._around_host)
        return around + 2 * max(block.num_bytes for block in self._blocks)

    def prefetch(self) -> None:
        self.upload()

    def upload(self) -> None:
        """Copy everything but the blocks to the device, and allocate the buffers for blocks there. If it does not fit,
        nothing stays on the device."""
        if self.is_resident:
            return
        try:
            self._upload()
        except BaseException:
            self.evict()
            raise

    def _upload(self) -> None:
        there = empty_on(self._device, self._around_host)
        for tensor, host, view in zip(self._around, self._around_host, there, strict=True):
            tensor.data = view.copy_(host, non_blocking=True)
        size = max(block.num_bytes for block in self._blocks)
        self._slots = [_Slot(torch.empty(size, dtype=torch.uint8, device=self._device)) for _ in range(2)]
        if self._copying is not None:
            # The buffers' memory may still be read by what was computed before on this stream.
            self._copying.wait_stream(torch.cuda.current_stream(self._device))
        self.is_resident = True
        self.uploads += 1

    def evict(self) -> None:
        for tensor, host in zip(self._around, self._around_host, strict=True):
            tensor.data = host
        for slot in self._slots:
            if self._copying is not None:
                slot.buffer.record_stream(self._copying)
        for block in self._blocks:
            block.point_at(block.host)
        self._slots, self._slot_of, self._turn = [], {}, 0
        self.is_resident = False

    def _before(self, index: int) -> None:
        """Wait on the device for the block's weights, and begin to copy the next block's."""
        if index not in self._slot_of:
            self._fetch(index)
        slot = self._slot_of[index]
        if slot.arrived is not None:
            torch.cuda.current_stream(self._device).wait_event(slot.arrived)
        self._blocks[index].point_at(slot.buffer)
        following = (index + 1) % len(self._blocks)
        if following not in self._slot_of:
            self._fetch(following)

    def _after(self, index: int) -> None:
        slot = self._slot_of.pop(index)
        if self._copying is not None:
            slot.computed = torch.cuda.Event()
            slot.computed.record(torch.cuda.current_stream(self._device))
        self._blocks[index].point_at(self._blocks[index].host)

    def _fetch(self, index: int) -> None:
        slot = self._slots[self._turn]
        self._turn = 1 - self._turn
        for other in [key for key, used in self._slot_of.items() if used is slot]:
            del self._slot_of[other]
            if self._copying is not None:
                # The pass was aborted, and its kernels may still read the buffer.
                self._copying.wait_stream(torch.cuda.current_stream(self._device))
        block = self._blocks[index]
        with torch.cuda.stream(self._copying) if self._copying is not None else nullcontext():
            if slot.computed is not None and self._copying is not None:
                self._copying.wait_event(slot.computed)
            slot.buffer[: block.num_bytes].copy_(block.host, non_blocking=True)
            if self._copying is not None:
                slot.arrived = torch.cuda.Event()
                slot.arrived.record(self._copying)
        self._slot_of[index] = slot
        self.copied_bytes += block.num_bytes


class _Slot:
    """A buffer on the device. arrived: its block has been copied. computed: its previous block is no longer read."""

    def __init__(self, buffer: torch.Tensor) -> None:
        self.buffer = buffer
        self.arrived: torch.cuda.Event | None = None
        self.computed: torch.cuda.Event | None = None


class _FlatBlock:
    """A block whose tensors are in one buffer of host memory; its weights are views of that buffer or of its copy."""

    host: torch.Tensor

    def __init__(self, block: torch.nn.Module) -> None:
        self.tensors = [*block.parameters(), *block.buffers()]
        self._layout = FlatLayout.of(self.tensors)

    @property
    def num_bytes(self) -> int:
        return self._layout.num_bytes

    def move_to(self, host: torch.Tensor) -> None:
        """Copy all tensors into the buffer (uint8, num_bytes); from then on, they are views of it."""
        self.host = host
        for tensor, view in zip(self.tensors, self._layout.views(self.host), strict=True):
            view.copy_(tensor.data)
            tensor.data = view  # one by one, so that no second copy of the block is held

    def point_at(self, buffer: torch.Tensor) -> None:
        for tensor, view in zip(self.tensors, self._layout.views(buffer), strict=True):
            tensor.data = view
