"""Workers as data: a device and the stages it may run. Layouts differ in nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ltx_dist.pipeline.recipe import Recipe
from ltx_dist.pipeline.storage import UNTILED, DecodeTiling

Residency = Literal["resident", "time_sliced", "streamed"]
Device = Literal["cpu", "cuda"]
DeviceWish = Literal["auto", "cpu", "cuda"]

MAX_HOST_SLOTS = 16
"""The limit of `placement.host_slots`, and of what a fast GPU gets without it."""

CPU = "cpu"
"""`DeviceInfo.name` of the cores of a host."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One device and the device stages it may run.

    device_name: its model, which tells its speed. node_id: the Ray node that it is on; None for any.
    residency: how the weights of its stages share the device. streamed: components whose blocks pass through the device
        one by one. keeps_host_copy: weights that leave the device stay in the host's memory; where that is too small
        they are read again.
    threads: CPU threads of the worker's torch; None leaves torch's own choice. num_gpus: GPUs that it requests from
    Ray. batch_size: clips of equal shape that may share a pass of a stage that allows it.
    host_slots: clips that may be in host stages, or in the device stage before them, at a time: their frames are in the
        host's memory.
    tiling: the pieces in which it decodes. peak_bytes: predicted peak of device memory. capacity: bytes of device
        memory; None if unknown.
    """

    worker_id: str
    stages: tuple[str, ...]
    device: Device
    device_index: int = 0
    residency: Residency = "resident"
    threads: int | None = None
    num_gpus: float = 0.0
    batch_size: int = 1
    host_slots: int = 1
    device_name: str = CPU
    node_id: str | None = None
    streamed: tuple[str, ...] = ()
    keeps_host_copy: bool = True
    tiling: DecodeTiling = UNTILED
    peak_bytes: int = 0
    capacity: int | None = None

    def __post_init__(self) -> None:
        assert self.host_slots >= 1, "without a slot no clip could ever leave the device"


@dataclass(frozen=True, slots=True)
class Placement:
    """The workers of a batch, the recipe whose stages they run, and `max_queued`: how many clips may wait in front of
    each device stage but the first, which has no bound."""

    recipe: Recipe
    layout: str
    workers: tuple[Worker, ...]
    max_queued: Mapping[str, int]

    @property
    def tiling(self) -> DecodeTiling:
        """The tiling in which all workers decode: pixels must not depend on which one did."""
        return self.workers[0].tiling
