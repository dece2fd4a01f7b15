"""The available devices: a cluster with an 80 GB card and two of 24 GB has three entries."""

from __future__ import annotations

from dataclasses import dataclass

BFLOAT16_CAPABILITY = (8, 0)
"""The compute capability of Ampere, the first with bfloat16 in its tensor cores. On older cards torch has neither a
memory-efficient attention (sdp_utils.cpp, `less_than_sm80_mem_efficient_dtypes`) nor cuDNN's convolutions for it: both
would take many times the memory."""


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """One device. name: from its driver, such as `NVIDIA GeForce RTX 4090`, or `cpu`.

    memory_bytes: None if unknown. node_id: Ray's hex id of its node; None is this machine. index: its position among
    the visible devices of its node. compute_capability: of a GPU, such as (8, 9); None where it is not known.
    """

    name: str
    memory_bytes: int | None
    node_id: str | None = None
    index: int = 0
    compute_capability: tuple[int, int] | None = None

    @property
    def lacks_bfloat16(self) -> bool:
        """Whether the GPU is known to be too old for efficient bfloat16."""
        return self.compute_capability is not None and self.compute_capability < BFLOAT16_CAPABILITY


@dataclass(frozen=True, slots=True)
class Inventory:
    """The free GPUs, in a stable order, and the CPU cores and memory of the smallest host that renders.

    node_ids: Ray's nodes that were looked at.
    """

    gpus: tuple[DeviceInfo, ...]
    num_cpus: int
    host_memory_bytes: int | None = None
    node_ids: frozenset[str] = frozenset()
