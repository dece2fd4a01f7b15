"""What this machine has, found without importing torch: planning must work, and fail, in milliseconds."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace

import psutil

from ltx_dist.placement.inventory import DeviceInfo, Inventory

NVIDIA_SMI = ("nvidia-smi", "--query-gpu=index,uuid,memory.total,name", "--format=csv,noheader,nounits")


DESCRIBED = "GPU as described"
"""`DeviceInfo.name` of a GPU that is in the config and not in this machine."""


def local_inventory() -> Inventory:
    """GPUs that `CUDA_VISIBLE_DEVICES` leaves visible, usable CPU cores, and the host's memory."""
    return Inventory(tuple(_visible(_query_gpus())), _usable_cores(), psutil.virtual_memory().total)


def _usable_cores() -> int:
    """Those that this process may run on; macOS does not tell, so all of them there."""
    process = psutil.Process()
    return len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else os.cpu_count() or 1


def with_described(inventory: Inventory, device: str, devices: int | None, memory_gb: float | None) -> Inventory:
    """For planning alone: where there are fewer GPUs than are asked for, as many of the memory that is asked for.

    What a machine that is not here, or not bought yet, would do. The same inventory where nothing has to be made up.
    """
    if device != "cuda" or len(inventory.gpus) >= (devices or 1):
        return inventory
    memory = None if memory_gb is None else int(memory_gb * 1e9)
    gpus = tuple(DeviceInfo(DESCRIBED, memory, index=index) for index in range(devices or 1))
    return replace(inventory, gpus=gpus)


def _query_gpus() -> list[tuple[str, str, int | None, str]]:
    """(index, uuid, bytes, name) of every GPU; none where there is no NVIDIA driver. Some do not tell their memory."""
    try:
        listing = subprocess.run(NVIDIA_SMI, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.split(", ", 3) for line in listing.strip().splitlines()]
    return [(index, uuid, int(size) * 2**20 if size.isdigit() else None, name) for index, uuid, size, name in rows]


def _visible(gpus: list[tuple[str, str, int | None, str]]) -> list[DeviceInfo]:
    """As torch numbers them: in the order of `CUDA_VISIBLE_DEVICES`, which ends at the first that is none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [index for index, *_ in gpus] if visible is None else [name.strip() for name in visible.split(",")]
    devices: list[DeviceInfo] = []
    for name in names:
        whole = next((gpu for gpu in gpus if name and (name == gpu[0] or gpu[1].startswith(name))), None)
        if whole is not None:
            devices.append(DeviceInfo(whole[3], whole[2], index=len(devices)))
        elif name.startswith("MIG-"):  # nvidia-smi lists no slices here
            devices.append(DeviceInfo("MIG slice", None, index=len(devices)))
        else:
            break
    return devices
