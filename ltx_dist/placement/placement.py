"""Devices + sizes + config -> workers as data. Nothing but the workers tells one layout from another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from ltx_dist.pipeline.stages import STAGES, Stage
from ltx_dist.pipeline.storage import DecodeTiling
from ltx_dist.pipeline.worker import CPU, Device, Placement, Worker
from ltx_dist.placement.fitting import Demand, Wish
from ltx_dist.placement.inventory import DeviceInfo, Inventory
from ltx_dist.placement.layouts import by_use, hosted_by_layout, hosted_by_size

HOST_SHARE = 0.8
"""Share of a host's memory for copies of weights: the rest is for the system, the drivers and clips under way."""

DEFAULT_QUEUE = 6
"""Clips that may wait between two stages, for each worker that takes from the queue, where nothing is swapped: with 2,
stages of alike length but unlike clips keep each other waiting. They are 4 to 9 MB each."""

DEFAULT_WAVE = 8
"""Clips that wait between two stages where a change of stage swaps weights and nothing predicts what that costs."""

DEFAULT_VIDEO_SLOTS = 2
"""Clips whose frames wait on the host or are in x264: one being encoded and one being decoded (120 to 660 MB each)."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """The placement section of the config with `None` and `auto` still in it."""

    layout: Literal["auto", "pinned", "shared", "replicated", "elastic"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int | None = None
    memory_gb: float | None = None
    threads: int | None = None
    residency: Wish = "auto"
    host_memory_gb: float | None = None
    wave: int | None = None
    video_slots: int | None = None


def place(wishes: Wishes, inventory: Inventory, demand: Demand, needed: tuple[Stage, ...] = STAGES) -> Placement:
    """The workers for these devices. `demand`: what the batch asks of them.

    needed: the stages that the batch still has to run, always to the last: what none hosts is never loaded.

    Raises ValueError naming the field when the devices cannot carry the layout.
    """
    devices = _devices(wishes, inventory)
    layout = wishes.layout if wishes.layout != "auto" else ("shared" if len(devices) == 1 else "replicated")

    def host(stages: tuple[Stage, ...]) -> list[tuple[Stage, ...]]:
        if layout == "elastic":
            return hosted_by_size(devices, stages, lambda device, some: _fits(wishes, device, some, demand))
        return hosted_by_layout(layout, len(devices), stages)

    hosted = host(needed)
    threads = wishes.threads or max(1, inventory.num_cpus // len(devices))
    # Tiles change the pixels, so they are those of the whole batch, whatever of it is done already.
    tiled = demand.in_tiles(_tiling(wishes, list(zip(devices, host(STAGES), strict=True)), demand))
    host_bytes = host_bytes_each(wishes, inventory, len(devices))
    workers = tuple(
        worker_for(device, number, stages, wishes, tiled, threads, host_bytes)
        for number, (device, stages) in enumerate(zip(devices, hosted, strict=True))
    )
    return Placement(layout, workers, _max_queued(wishes, workers))


def with_device(placement: Placement, device: DeviceInfo, number: int, wishes: Wishes, demand: Demand) -> Placement:
    """The placement with one worker more, its last, on a GPU that joined. `number`: of its name, used by none before.

    In `pinned` it denoises, as every device beyond the third; in `elastic` it runs what fits; in `shared`, which then
    is no longer one device, and elsewhere it runs all stages that the batch needs.
    """
    needed = tuple(stage for stage in STAGES if any(stage in worker.stages for worker in placement.workers))
    stages = (Stage.DENOISE,) if placement.layout == "pinned" and Stage.DENOISE in needed else needed
    demand = demand.in_tiles(placement.tiling)
    if placement.layout == "elastic":
        stages = next((some for some in by_use(needed) if _fits(wishes, device, some, demand)), needed)
    worker = worker_for(device, number, stages, wishes, demand, wishes.threads)
    workers = (*placement.workers, worker)
    return Placement(placement.layout, workers, _max_queued(wishes, workers))


def worker_for(
    device: DeviceInfo,
    number: int,
    stages: tuple[Stage, ...],
    wishes: Wishes,
    demand: Demand,
    threads: int | None,
    host_bytes: int | None = None,
) -> Worker:
    """The worker on a device. `threads` are for torch on a CPU; beside a GPU only a wish sets them.

    host_bytes: of the host's memory for this worker's weights; None where it is not known to be short.
    """
    kind = _kind(device)
    way = demand.fit(kind, _capacity(wishes, device), stages, wishes.residency)
    moves = way.residency != "resident"
    return Worker(
        worker_id=f"{kind}:{number}",
        stages=stages,
        device=kind,
        device_index=device.index,
        residency=way.residency,
        threads=threads if kind == "cpu" else wishes.threads,
        num_gpus=1.0 if kind == "cuda" else 0.0,
        batch_size=demand.batch_size,
        video_slots=_video_slots(wishes, kind, stages),
        device_name=device.name,
        node_id=device.node_id,
        streamed=way.streamed,
        keeps_host_copy=not moves or (kind == "cuda" and (host_bytes is None or demand.weights(stages) <= host_bytes)),
        tiling=way.tiling,
        peak_bytes=way.peak_bytes,
        capacity=_capacity(wishes, device),
    )


def _devices(wishes: Wishes, inventory: Inventory) -> list[DeviceInfo]:
    """The devices to use, in the order in which they get their stages."""
    if wishes.device == "cuda" and not inventory.gpus:
        raise ValueError("placement.device: cuda was asked for and no GPU was found; use cpu, or check nvidia-smi")
    if wishes.layout == "shared" and wishes.devices not in (None, 1):
        raise ValueError(f"placement.devices: shared uses one device, not {wishes.devices}; use replicated")
    if wishes.device == "cpu" or not inventory.gpus:
        count = 1 if wishes.layout == "shared" else wishes.devices or (len(STAGES) if wishes.layout == "pinned" else 1)
        memory = inventory.host_memory_bytes if wishes.host_memory_gb is None else int(wishes.host_memory_gb * 1e9)
        each = None if memory is None else memory // count
        return [DeviceInfo(CPU, each, index=index) for index in range(count)]
    found = len(inventory.gpus)
    if wishes.devices is not None and wishes.devices > found:
        raise ValueError(
            f"placement.devices: {wishes.devices} were asked for and {found} GPUs were found; use {found} or fewer"
        )
    count = 1 if wishes.layout == "shared" else wishes.devices or found
    return list(inventory.gpus[:count])


def _fits(wishes: Wishes, device: DeviceInfo, stages: tuple[Stage, ...], demand: Demand) -> bool:
    """Whether the device keeps the weights of all of these stages at once and has room to work."""
    try:
        return demand.fit(_kind(device), _capacity(wishes, device), stages).residency == "resident"
    except ValueError:
        return False


def _kind(device: DeviceInfo) -> Device:
    return "cpu" if device.name == CPU else "cuda"


def _capacity(wishes: Wishes, device: DeviceInfo) -> int | None:
    """Bytes of the device, or fewer where that is wished for: no wish makes it larger than it is. Unknown memory is
    treated as too small for all: paging costs a factor of a hundred."""
    if wishes.memory_gb is None:
        return device.memory_bytes
    wished = int(wishes.memory_gb * 1e9)
    return wished if device.memory_bytes is None else min(wished, device.memory_bytes)


def _tiling(wishes: Wishes, hosted: list[tuple[DeviceInfo, tuple[Stage, ...]]], demand: Demand) -> DecodeTiling:
    """That of the device which needs the smallest pieces, for all. With one to choose from there is no choice."""
    if len(demand.tilings) == 1:
        return demand.tilings[0]
    kinds = {(device.name, device.memory_bytes, stages): (device, stages) for device, stages in hosted}
    needed = [
        demand.fit(_kind(device), _capacity(wishes, device), stages, wishes.residency).tiling
        for device, stages in kinds.values()
        if Stage.DECODE in stages
    ]
    return max(needed, key=demand.tilings.index, default=demand.tilings[0])


def host_bytes_each(wishes: Wishes, inventory: Inventory, num_workers: int) -> int | None:
    """Of the smallest host, for the copies of one worker's weights, as if all workers were on it."""
    host = inventory.host_memory_bytes if wishes.host_memory_gb is None else int(wishes.host_memory_gb * 1e9)
    if host is None:
        return None
    nodes = len({device.node_id for device in inventory.gpus}) or 1
    return int(HOST_SHARE * host) // max(1, -(-num_workers // nodes))


def _video_slots(wishes: Wishes, device: Device, stages: tuple[Stage, ...]) -> int:
    if Stage.DECODE not in stages:
        return 0
    if wishes.video_slots is not None:
        return wishes.video_slots
    return DEFAULT_VIDEO_SLOTS if device == "cuda" else 0


def in_waves(placement: Placement, wishes: Wishes, wave_of: Callable[[Worker], int]) -> Placement:
    """The same with waves of the size that each worker's swaps need, where no wish says another."""
    return replace(placement, max_queued=_max_queued(wishes, placement.workers, wave_of))


def _max_queued(
    wishes: Wishes, workers: tuple[Worker, ...], wave_of: Callable[[Worker], int] = lambda _: DEFAULT_WAVE
) -> dict[Stage, int]:
    """The bound of the queue in front of each stage but the first, whose queue is the batch itself.

    Work in flight in the stage before counts against the bound, so every producer beyond the first adds a pass: a wave
    of 8 is exactly 8 clips for one worker, and no bound ever keeps one of several producers idle by itself. Unless
    a wish says so, a wave is no smaller than a pass that may be shared, which could not come about otherwise.
    """
    bounds: dict[Stage, int] = {}
    for previous, stage in pairwise(STAGES):
        producers = [worker for worker in workers if previous in worker.stages]
        consumers = [worker for worker in workers if stage in worker.stages]
        swapping = [worker for worker in consumers if worker.residency != "resident" and len(worker.stages) > 1]
        shared = max(worker.batch_size for worker in workers)
        wave = wishes.wave or max(shared, max(map(wave_of, swapping), default=DEFAULT_QUEUE))
        bounds[stage] = wave * len(consumers) + shared * (len(producers) - 1)
    return bounds
