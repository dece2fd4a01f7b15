"""A module's weights as views of one buffer: copied at once, and allocated and freed as one piece of memory.

Allocated tensor by tensor, the 3.85 GB of a 2B transformer take 4.32 GB in torch's CUDA allocator: it puts two matrices
of 8 MiB into a segment of 20 MiB, and activations cannot use the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ltx_dist.weights.host_memory import ALIGNMENT

FLOAT8 = torch.float8_e4m3fn


@dataclass(frozen=True, slots=True)
class FlatLayout:
    """Positions of tensors in a buffer (uint8, `num_bytes`): (start, dtype, shape), in their order."""

    places: tuple[tuple[int, torch.dtype, torch.Size], ...]
    num_bytes: int

    @classmethod
    def of(cls, tensors: Sequence[torch.Tensor]) -> FlatLayout:
        places: list[tuple[int, torch.dtype, torch.Size]] = []
        end = 0
        for tensor in tensors:
            places.append((end, tensor.dtype, tensor.shape))
            end += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
        return cls(tuple(places), end)

    def views(self, buffer: torch.Tensor) -> list[torch.Tensor]:
        return [
            buffer[start : start + dtype.itemsize * shape.numel()].view(dtype).view(shape)
            for start, dtype, shape in self.places
        ]


def empty_on(device: torch.device, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Device memory for copies of these tensors, on the current stream: views of one buffer.

    Each float8 weight has its own memory: diffusers' layerwise casting replaces each by a new tensor in every pass, and
    a common buffer would be held until the last of them is replaced.
    """
    flat = [tensor for tensor in tensors if tensor.dtype != FLOAT8]
    layout = FlatLayout.of(flat)
    views = iter(layout.views(torch.empty(layout.num_bytes, dtype=torch.uint8, device=device)))
    return [torch.empty_like(tensor, device=device) if tensor.dtype == FLOAT8 else next(views) for tensor in tensors]


def move_flat(module: torch.nn.Module, device: torch.device) -> None:
    """Move the module's weights to the device for good, into one buffer. On a CPU nothing happens."""
    if device.type == "cpu":
        return
    tensors = [*module.parameters(), *module.buffers()]
    for tensor, there in zip(tensors, empty_on(device, tensors), strict=True):
        tensor.data = there.copy_(tensor.data)
