"""What this machine has, found without importing torch: planning must work, and fail, in milliseconds."""

from __future__ import annotations

import os
import subprocess

from ltx_dist.scheduling.placement import Inventory

NVIDIA_SMI = ("nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits")


def local_inventory() -> Inventory:
    """GPUs that `CUDA_VISIBLE_DEVICES` leaves visible, the memory of the smallest in bytes, and usable CPU cores."""
    memory = _visible(_query_gpus())
    known = [size for size in memory if size is not None]
    return Inventory(len(memory), min(known) if len(known) == len(memory) > 0 else None, len(os.sched_getaffinity(0)))


def _query_gpus() -> list[tuple[str, str, int | None]]:
    """(index, uuid, bytes) of every GPU; none where there is no NVIDIA driver. Some boards do not tell their memory."""
    try:
        listing = subprocess.run(NVIDIA_SMI, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.split(", ") for line in listing.strip().splitlines()]
    return [(index, uuid, int(size) * 2**20 if size.isdigit() else None) for index, uuid, size in rows]


def _visible(gpus: list[tuple[str, str, int | None]]) -> list[int | None]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [memory for _, _, memory in gpus]
    wanted = [name.strip() for name in visible.split(",") if name.strip()]
    slices: list[int | None] = [None for name in wanted if name.startswith("MIG-")]
    return slices + [
        memory for index, uuid, memory in gpus if any(name == index or uuid.startswith(name) for name in wanted)
    ]
