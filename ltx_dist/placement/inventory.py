"""The available devices: a cluster with an 80 GB card and two of 24 GB has three entries."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """One device. name: from its driver, such as `NVIDIA GeForce RTX 4090`, or `cpu`.

    memory_bytes: None where the device does not tell it. node_id: Ray's hex id of its node; None is this machine.
    index: among the devices of its node that are visible.
    """

    name: str
    memory_bytes: int | None
    node_id: str | None = None
    index: int = 0


@dataclass(frozen=True, slots=True)
class Inventory:
    """The free GPUs, in a stable order, and the CPU cores and memory of their smallest host.

    node_ids: Ray's nodes that were looked at.
    """

    gpus: tuple[DeviceInfo, ...]
    num_cpus: int
    host_memory_bytes: int | None = None
    node_ids: frozenset[str] = frozenset()
