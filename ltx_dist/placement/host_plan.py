"""Plans the workers' host memory: page-locked copies of weights, casts while loading, frames, the process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ltx_dist.pipeline.worker import Worker
from ltx_dist.placement.fitting import BatchDemand, gigabytes

PROCESS_BYTES = 1_500_000_000
"""Bytes of a process that renders on a GPU: torch, diffusers, transformers (0.6 GB), and the host's side of CUDA."""

SMALLEST_SLAB = 256 << 20
"""Bytes of the smallest slab of page-locked memory. Slabs are powers of two, so the end of the last one stays
unused."""


@dataclass(frozen=True, slots=True)
class HostNeed:
    """Bytes of host memory that one worker needs.

    locked: page-locked copies of weights that it holds at a time. casting: the largest component stored in another
    dtype, which is in ordinary memory until it is on the device. frames: those of the clips in its host stages.
    largest: the component with most of the locked bytes, or if there are none, with most bytes.
    """

    locked: int
    casting: int
    frames: int
    largest: str

    @property
    def total(self) -> int:
        return PROCESS_BYTES + self.locked + self.casting + self.frames


def host_need(worker: Worker, demand: BatchDemand) -> HostNeed:
    """The host memory that the worker needs; no bytes for a worker on a CPU, whose device is the host's memory."""
    if worker.device == "cpu":
        return HostNeed(0, 0, 0, "")
    models = demand.models
    components = sorted(models.components(worker.stages), key=lambda name: models.weights[name], reverse=True)
    copied = [name for name in components if name not in models.quantised]
    moving = copied if worker.residency != "resident" and worker.keeps_host_copy else [*worker.streamed]
    sizes = [_locked_bytes(models.weights[name], models.block_bytes.get(name, 0)) for name in moving]
    # Without copies of all of them one is read at a time, streamed, and forgotten after its turn.
    locked = sum(sizes) if worker.keeps_host_copy else max(sizes, default=0)
    casting = [models.weights[name] for name in components if name in models.cast and name not in moving]
    frames = max((3 * one.num_frames * one.height * one.width for one in demand.shapes), default=0)
    largest = max(moving or components, key=lambda name: models.weights[name])
    return HostNeed(locked, max(casting, default=0), worker.host_slots * frames, largest)


def require_host_memory(workers: Sequence[Worker], demand: BatchDemand, host_bytes: int | None) -> None:
    """Raises ValueError if the workers of one host need more memory than it has, saying what would fit."""
    if host_bytes is None:
        return
    for of_host in _by_host(workers):
        needs = [host_need(worker, demand) for worker in of_host]
        needed = sum(need.total for need in needs)
        if not any(worker.device == "cuda" for worker in of_host) or needed <= host_bytes:
            continue
        most = max(needs, key=lambda need: need.total)
        fitting = host_bytes // most.total
        remedy = "more memory, or a smaller model"
        if 0 < fitting < len(of_host):
            remedy = f"placement.devices: {fitting}, or {gigabytes(needed)} of memory"
        elif most.largest == "text_encoder":
            remedy = "model.text_encoder_quantization: int8, or more memory"
        what = f"{gigabytes(most.locked)} of page-locked weights"
        if not most.locked:
            what = f"{gigabytes(most.casting)} of weights that are cast while they are loaded"
        raise ValueError(
            f"placement.host_memory_gb: {len(of_host)} workers on one host need {gigabytes(needed)} of its "
            f"{gigabytes(host_bytes)}, each up to {gigabytes(most.total)}: {what}, most of it for {most.largest}; "
            f"use {remedy}"
        )


def most_on_a_host(workers: Sequence[Worker], demand: BatchDemand) -> tuple[int, int]:
    """Bytes that the GPU workers of one host need together, and their number, for the host that needs most.

    (0, 0) without GPUs.
    """
    by_host = _by_host([worker for worker in workers if worker.device == "cuda"])
    return max(
        ((sum(host_need(worker, demand).total for worker in of_host), len(of_host)) for of_host in by_host),
        default=(0, 0),
    )


def _by_host(workers: Sequence[Worker]) -> Iterable[list[Worker]]:
    nodes = Counter(worker.node_id for worker in workers)
    return [[worker for worker in workers if worker.node_id == node] for node in nodes]


def _locked_bytes(weights: int, block: int) -> int:
    """Bytes of the slabs that hold this many bytes of weights; see `weights/host_memory.py`, which allocates them."""
    slab = _power_of_two(max(SMALLEST_SLAB, 8 * block))
    filled = slab // block * block if block else slab  # no block is in two slabs
    whole, rest = divmod(weights, filled)
    return whole * slab + (_power_of_two(rest) if rest else 0)


def _power_of_two(number: int) -> int:
    return 1 << max(number - 1, 0).bit_length()
