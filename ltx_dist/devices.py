"""What this machine has, found without importing torch: planning must work, and fail, in milliseconds."""

from __future__ import annotations

import os
import subprocess

from ltx_dist.scheduling.placement import Inventory

NVIDIA_SMI = ("nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits")


def local_inventory() -> Inventory:
    """GPUs that `CUDA_VISIBLE_DEVICES` leaves visible, the memory of the smallest in bytes, and usable CPU cores."""
    memory = _visible(_query_gpus())
    return Inventory(len(memory), min(memory, default=None), len(os.sched_getaffinity(0)))


def _query_gpus() -> list[tuple[str, str, int]]:
    """(index, uuid, bytes) of every GPU; none where there is no NVIDIA driver."""
    try:
        listing = subprocess.run(NVIDIA_SMI, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.split(", ") for line in listing.strip().splitlines()]
    return [(index, uuid, int(mebibytes) * 2**20) for index, uuid, mebibytes in rows]


def _visible(gpus: list[tuple[str, str, int]]) -> list[int]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [memory for _, _, memory in gpus]
    wanted = [name.strip() for name in visible.split(",") if name.strip()]
    return [memory for index, uuid, memory in gpus if any(name == index or uuid.startswith(name) for name in wanted)]
