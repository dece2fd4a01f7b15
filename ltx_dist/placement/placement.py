"""Turns devices, sizes and config into workers as data. Layouts differ only in their workers."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Literal

from ltx_dist.pipeline.storage import DecodeTiling
from ltx_dist.pipeline.worker import CPU, Device, DeviceWish, Placement, Worker
from ltx_dist.placement.fitting import BatchDemand, Wish
from ltx_dist.placement.host_plan import require_host_memory
from ltx_dist.placement.inventory import DeviceInfo, Inventory
from ltx_dist.placement.layouts import PINNED_DEVICES, Hosted, by_use, hosted_by_layout, hosted_by_size
from ltx_dist.placement.waves import max_queued

HOST_SHARE = 0.8
"""Share of a host's memory for copies of weights: the rest is for the system, the drivers and clips in work."""

HOST_SLOTS = 2
"""Minimum number of clips whose frames are in the host's memory (120 to 660 MB each): one is encoded while one is
decoded."""


LayoutWish = Literal["auto", "pinned", "shared", "replicated", "elastic"]


@dataclass(frozen=True, slots=True)
class Wishes:
    """The placement section of the config with `None` and `auto` still in it."""

    layout: LayoutWish = "auto"
    device: DeviceWish = "auto"
    devices: int | None = None
    memory_gb: float | None = None
    threads: int | None = None
    residency: Wish = "auto"
    host_memory_gb: float | None = None
    wave: int | None = None
    host_slots: int | None = None


def place(wishes: Wishes, inventory: Inventory, demand: BatchDemand, needed: Hosted | None = None) -> Placement:
    """The workers for these devices. `demand`: the batch's demands on them.

    needed: the device stages that the batch still has to run, in order; all if not given. What no worker hosts is
    never loaded.

    Raises ValueError naming the field if the devices cannot hold the layout.
    """
    devices = _devices(wishes, inventory)
    layout = wishes.layout if wishes.layout != "auto" else ("shared" if len(devices) == 1 else "replicated")

    recipe = demand.models.recipe

    def host(stages: Hosted) -> list[Hosted]:
        if layout == "elastic":
            return hosted_by_size(devices, recipe, stages, lambda device, some: _fits(wishes, device, some, demand))
        return hosted_by_layout(layout, len(devices), recipe, stages)

    hosted = host(demand.stages if needed is None else needed)
    threads = wishes.threads or max(1, inventory.num_cpus // len(devices))
    # Tiles change the pixels, so they follow from the whole batch, even if part of it is done already.
    tiled = demand.in_tiles(_tiling(wishes, list(zip(devices, host(demand.stages), strict=True)), demand))
    copy_bytes = host_bytes_each(wishes, inventory, len(devices))
    workers = tuple(
        worker_for(device, number, stages, wishes, tiled, threads, copy_bytes)
        for number, (device, stages) in enumerate(zip(devices, hosted, strict=True))
    )
    require_host_memory(workers, demand, host_bytes(wishes, inventory))
    return Placement(recipe, layout, workers, max_queued(recipe, workers, wishes.wave))


def with_device(
    placement: Placement, device: DeviceInfo, number: int, wishes: Wishes, demand: BatchDemand
) -> Placement:
    """The placement with one more worker, its last, on a GPU that joined. `number`: for its name, never used before.

    In `pinned` it runs the main stages, as every device beyond the third; in `elastic` it runs what fits; in `shared`,
    which then is no longer one device, and elsewhere it runs all stages that the batch needs. Its host may be smaller
    than those planned for, so it gets as few host slots as any other worker.
    """
    recipe = placement.recipe
    needed = recipe.ordered({stage for worker in placement.workers for stage in worker.stages})
    main = tuple(stage for stage in needed if stage in recipe.main)
    stages = main if placement.layout == "pinned" and main else needed
    demand = demand.in_tiles(placement.tiling)
    if placement.layout == "elastic":
        stages = next((some for some in by_use(recipe, needed) if _fits(wishes, device, some, demand)), needed)
    worker = worker_for(device, number, stages, wishes, demand, wishes.threads)
    worker = replace(worker, host_slots=min(other.host_slots for other in placement.workers))
    workers = (*placement.workers, worker)
    return Placement(recipe, placement.layout, workers, max_queued(recipe, workers, wishes.wave))


def worker_for(
    device: DeviceInfo,
    number: int,
    stages: Hosted,
    wishes: Wishes,
    demand: BatchDemand,
    threads: int | None,
    copy_bytes: int | None = None,
) -> Worker:
    """The worker on a device. `threads` are for torch on a CPU; with a GPU only the config sets them.

    copy_bytes: bytes of host memory for copies of this worker's weights; None for no limit.
    """
    kind = _kind(device)
    _require_kernels(device, demand.models.precisions)
    plan = demand.plan_memory(kind, _capacity(wishes, device), stages, wishes.residency)
    moves = plan.residency != "resident"
    fits_host = kind == "cuda" and (copy_bytes is None or demand.host_copies(stages) <= copy_bytes)
    return Worker(
        worker_id=f"{kind}:{number}",
        stages=stages,
        device=kind,
        device_index=device.index,
        residency=plan.residency,
        threads=threads if kind == "cpu" else wishes.threads,
        num_gpus=1.0 if kind == "cuda" else 0.0,
        batch_size=demand.batch_size,
        host_slots=HOST_SLOTS if wishes.host_slots is None else wishes.host_slots,
        device_name=device.name,
        node_id=device.node_id,
        streamed=plan.streamed,
        keeps_host_copy=not moves or fits_host,
        tiling=plan.tiling,
        peak_bytes=plan.peak_bytes,
        capacity=_capacity(wishes, device),
    )


def _require_kernels(device: DeviceInfo, precisions: Collection[str]) -> None:
    """Raises ValueError if the GPU has no efficient kernels for one of the dtypes.

    Attention would store all of its scores, and convolutions would take 27 times the memory of their input.
    """
    if "bfloat16" in precisions and device.lacks_bfloat16:
        assert device.compute_capability is not None
        major, minor = device.compute_capability
        raise ValueError(
            f"model.precision, model.vae_precision: {device.name} (compute capability {major}.{minor}) has no "
            "efficient kernels for bfloat16; use float32, which is streamed where it does not fit (float16 is "
            "untested), or leave this card out: with CUDA_VISIBLE_DEVICES, or in a cluster by starting Ray on its "
            "node with --num-gpus=0"
        )


def _devices(wishes: Wishes, inventory: Inventory) -> list[DeviceInfo]:
    """The devices to use, in the order in which they get their stages."""
    if wishes.device == "cuda" and not inventory.gpus:
        raise ValueError("placement.device: cuda was requested, but no GPU was found; use cpu, or check nvidia-smi")
    if wishes.layout == "shared" and wishes.devices not in (None, 1):
        raise ValueError(f"placement.devices: shared uses one device, not {wishes.devices}; use replicated")
    if wishes.device == "cpu" or not inventory.gpus:
        count = (
            1 if wishes.layout == "shared" else wishes.devices or (PINNED_DEVICES if wishes.layout == "pinned" else 1)
        )
        memory = host_bytes(wishes, inventory)
        each = None if memory is None else memory // count
        return [DeviceInfo(CPU, each, index=index) for index in range(count)]
    found = len(inventory.gpus)
    if wishes.devices is not None and wishes.devices > found:
        raise ValueError(
            f"placement.devices: {wishes.devices} GPUs were requested, but {found} were found; use {found} or fewer"
        )
    count = 1 if wishes.layout == "shared" else wishes.devices or found
    return list(inventory.gpus[:count])


def _fits(wishes: Wishes, device: DeviceInfo, stages: Hosted, demand: BatchDemand) -> bool:
    """Whether the device can hold the weights of all these stages at once, and their working sets."""
    try:
        return demand.plan_memory(_kind(device), _capacity(wishes, device), stages).residency == "resident"
    except ValueError:
        return False


def _kind(device: DeviceInfo) -> Device:
    return "cpu" if device.name == CPU else "cuda"


def _capacity(wishes: Wishes, device: DeviceInfo) -> int | None:
    """Bytes of the device, or fewer if the config says so, but never more. Unknown memory is
    treated as too small for all: paging costs a factor of a hundred."""
    if wishes.memory_gb is None:
        return device.memory_bytes
    wished = int(wishes.memory_gb * 1e9)
    return wished if device.memory_bytes is None else min(wished, device.memory_bytes)


def _tiling(wishes: Wishes, hosted: list[tuple[DeviceInfo, Hosted]], demand: BatchDemand) -> DecodeTiling:
    """The tiling for all devices: that of the device that needs the smallest tiles."""
    if len(demand.tilings) == 1:
        return demand.tilings[0]
    kinds = {(device.name, device.memory_bytes, stages): (device, stages) for device, stages in hosted}
    needed = [
        demand.plan_memory(_kind(device), _capacity(wishes, device), stages, wishes.residency).tiling
        for device, stages in kinds.values()
    ]
    return max(needed, key=demand.tilings.index, default=demand.tilings[0])


def host_bytes_each(wishes: Wishes, inventory: Inventory, num_workers: int) -> int | None:
    """Bytes of the smallest host for one worker's copies of weights, as if all workers were on it."""
    host = host_bytes(wishes, inventory)
    if host is None:
        return None
    nodes = len({device.node_id for device in inventory.gpus}) or 1
    return int(HOST_SHARE * host) // max(1, -(-num_workers // nodes))


def host_bytes(wishes: Wishes, inventory: Inventory) -> int | None:
    """Bytes of the smallest host, or the configured value."""
    return inventory.host_memory_bytes if wishes.host_memory_gb is None else int(wishes.host_memory_gb * 1e9)


def with_changed(placement: Placement, changed: Worker, wishes: Wishes) -> Placement:
    """The placement after one of its workers changed its residency, with matching queue bounds."""
    workers = tuple(changed if worker.worker_id == changed.worker_id else worker for worker in placement.workers)
    return replace(placement, workers=workers, max_queued=max_queued(placement.recipe, workers, wishes.wave))


def with_host_slots(
    placement: Placement, slots_of: Callable[[Worker], int], demand: BatchDemand, host_memory_bytes: int | None
) -> Placement:
    """The placement with `slots_of(worker)` host slots for each worker; unchanged if a host lacks the memory.

    host_memory_bytes: of the smallest host, None where it is not known.
    """
    workers = tuple(replace(worker, host_slots=slots_of(worker)) for worker in placement.workers)
    try:
        require_host_memory(workers, demand, host_memory_bytes)
    except ValueError:
        return placement
    return replace(placement, workers=workers)
