"""Workers as data: a device and the stages it may run. Layouts differ in nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ltx_dist.pipeline.stages import Stage
from ltx_dist.pipeline.storage import UNTILED, DecodeTiling

Residency = Literal["resident", "time_sliced", "streamed"]
Device = Literal["cpu", "cuda"]

CPU = "cpu"
"""`DeviceInfo.name` of the cores of a host."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One device and the stages it may run.

    device_name: its model, which tells its speed. node_id: the Ray node that it is on; None is any.
    threads: CPU threads of the worker's torch; None leaves torch's own choice. num_gpus: what it asks of Ray.
    streamed: stages whose component's blocks pass through the device one by one. keeps_host_copy: weights that leave
        the device stay in the host's memory; where that is too small they are read again. tiling: of DECODE.
    peak_bytes: what is predicted to be on the device at most. capacity: its bytes, None where they are not known.
    batch_size: clips of equal shape that may share a pass of its text encoder or transformer.
    video_slots: clips whose frames may be on the worker's host while x264 makes their mp4s beside the device's work;
        0 where the device is the host: there nothing would be gained, and decoding ends with the mp4.
    """

    worker_id: str
    stages: tuple[Stage, ...]
    device: Device
    device_index: int = 0
    residency: Residency = "resident"
    threads: int | None = None
    num_gpus: float = 0.0
    batch_size: int = 1
    video_slots: int = 0
    device_name: str = CPU
    node_id: str | None = None
    streamed: tuple[Stage, ...] = ()
    keeps_host_copy: bool = True
    tiling: DecodeTiling = UNTILED
    peak_bytes: int = 0
    capacity: int | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """The workers of a batch and `max_queued`: how many clips may wait in front of a stage."""

    layout: str
    workers: tuple[Worker, ...]
    max_queued: Mapping[Stage, int]

    @property
    def tiling(self) -> DecodeTiling:
        """In which all workers decode: pixels must not tell which one did."""
        return self.workers[0].tiling
