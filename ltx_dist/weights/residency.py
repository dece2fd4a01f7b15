"""Moves weights between host and device. They never change, so eviction just drops the device copy."""

from __future__ import annotations

import torch

from ltx_dist.weights.flat import empty_on
from ltx_dist.weights.host_memory import HostBuffers, Report, to_log
from ltx_dist.weights.numa import cpus_near


class ResidentModule:
    """A module whose weights stay in host memory and are copied to the device while they are needed.

    For a GPU they are moved to page-locked memory, once and tensor by tensor. On a CPU, host and device are the same
    memory, and both moves cost nothing. uploads: number of copies so far. report: called if page-locking fails.
    """

    def __init__(self, module: torch.nn.Module, device: torch.device, report: Report = to_log) -> None:
        self._module = module
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._arrived: torch.cuda.Event | None = None
        self._host: dict[str, torch.Tensor] = {}
        sizes = [tensor.nbytes for _, tensor in self._tensors()]
        buffers = HostBuffers(sizes, pin=True, report=report, near=cpus_near(device)) if self._stream else None
        for index, (name, tensor) in enumerate(self._tensors()):
            if buffers is not None:
                tensor.data = moved(tensor.data, buffers[index])
            self._host[name] = tensor.data
        self.is_resident = False
        self.uploads = 0

    @property
    def num_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self._host.values())

    def prefetch(self) -> None:
        """Begin copying the weights to the device while it computes, and return at once.

        If they do not fit, none stay on the device, and torch.OutOfMemoryError is raised.
        """
        if self.is_resident:
            return
        try:
            self._copy()
        except BaseException:  # otherwise the next upload would take the half that is on the device for all of it
            self.evict()
            raise
        self.is_resident = True
        self.uploads += 1

    def _copy(self) -> None:
        if self._stream is None:
            return
        # Allocated on the computing stream, from whose pool later activations and weights come: the next turn could not
        # reuse memory of another stream's pool. The copy waits for what was computed in that memory before.
        there = empty_on(self._device, [*self._host.values()])
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for (name, tensor), view in zip(self._tensors(), there, strict=True):
                tensor.data = view.copy_(self._host[name], non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record(self._stream)

    def upload(self) -> None:
        """Have everything that is computed from now on wait, on the device, for the weights."""
        self.prefetch()
        if self._stream is None or self._arrived is None:
            return
        self._arrived.synchronize()  # on the host, so that the wait counts as loading and not as the stage's time
        torch.cuda.current_stream(self._device).wait_event(self._arrived)
        self._arrived = None

    def evict(self) -> None:
        """Point the module back at its host weights; the device copy is free to be reused."""
        for name, tensor in self._tensors():
            if self._stream is not None and self._arrived is not None:
                tensor.data.record_stream(self._stream)  # its copy may still be under way
            tensor.data = self._host[name]
        self._arrived = None
        self.is_resident = False

    def _tensors(self) -> list[tuple[str, torch.Tensor]]:
        return [*self._module.named_parameters(), *self._module.named_buffers()]


def moved(tensor: torch.Tensor, buffer: torch.Tensor) -> torch.Tensor:
    """A copy of the tensor inside a buffer (uint8) of its size."""
    view = buffer.view(tensor.dtype).view(tensor.shape)
    view.copy_(tensor)
    return view
