"""Host <-> device. Weights never change, so eviction drops the device copy and copies nothing back."""

from __future__ import annotations

import torch


class ResidentModule:
    """A module whose weights stay in host memory and are copied to the device while they are needed.

    On a CPU device the two are the same memory, and both moves cost nothing.
    """

    def __init__(self, module: torch.nn.Module, device: str) -> None:
        self._module = module
        self._device = torch.device(device)
        self._host = {name: tensor.data for name, tensor in self._tensors()}
        self.is_resident = False

    def upload(self) -> None:
        """Copy the weights to the device; returns when they are there."""
        if self.is_resident:
            return
        for name, tensor in self._tensors():
            tensor.data = self._host[name].to(self._device, non_blocking=True)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.is_resident = True

    def evict(self) -> None:
        """Point the module back at its host weights; the device copy is free to be reused."""
        for name, tensor in self._tensors():
            tensor.data = self._host[name]
        self.is_resident = False

    def _tensors(self) -> list[tuple[str, torch.Tensor]]:
        return [*self._module.named_parameters(), *self._module.named_buffers()]
