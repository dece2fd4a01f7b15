"""Finds this machine's devices without importing torch: planning must work, and fail, in milliseconds."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import psutil

from ltx_dist.environment import CUDA_DEVICE_ORDER, OURS
from ltx_dist.placement.inventory import DeviceInfo, Inventory

NVIDIA_SMI = (
    "nvidia-smi", "--query-gpu=index,uuid,memory.total,mig.mode.current,name", "--format=csv,noheader,nounits",
)  # fmt: skip

ANSWER_SECONDS = 60.0
"""Eight cards without persistence mode take 20 s and more."""

MIG_SLICE = "MIG slice"
"""`DeviceInfo.name` of a part of a GPU, whose memory nvidia-smi does not list here."""


DESCRIBED = "GPU as described"
"""`DeviceInfo.name` of a GPU that is only described by the config."""


def local_inventory() -> Inventory:
    """GPUs that `CUDA_VISIBLE_DEVICES` leaves visible, usable CPU cores, and the host's memory."""
    return Inventory(tuple(_visible(_query_gpus())), _usable_cores(), host_memory_bytes())


def _usable_cores() -> int:
    """The cores that this process may run on; all of them on macOS, which does not tell."""
    process = psutil.Process()
    return len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else os.cpu_count() or 1


def host_memory_bytes(root: Path = Path("/")) -> int:
    """Bytes of memory that this process may use: the host's, or the limit of its control group, as in a container.

    root: where /proc and /sys are.
    """
    limits = [psutil.virtual_memory().total]
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        name, base = ("memory.max", root / "sys/fs/cgroup")  # of version 2
        if controllers:
            if "memory" not in controllers.split(","):
                continue
            name, base = "memory.limit_in_bytes", base / "memory"
        # Inside a container the path may be the host's, and its own group the one at the mount.
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(base) and (text := _read(folder / name).strip()).isdigit():
                limits.append(int(text))
    return min(limits)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def with_described(inventory: Inventory, device: str, devices: int | None, memory_gb: float | None) -> Inventory:
    """For planning: if there are fewer GPUs than requested, the requested number with the requested memory.

    What a machine that is not here, or not bought yet, would do; its host's memory is unknown. The same inventory where
    nothing has to be made up.
    """
    if device != "cuda" or len(inventory.gpus) >= (devices or 1):
        return inventory
    memory = None if memory_gb is None else int(memory_gb * 1e9)
    gpus = tuple(DeviceInfo(DESCRIBED, memory, index=index) for index in range(devices or 1))
    return replace(inventory, gpus=gpus, host_memory_bytes=None)


def check_order(inventory: Inventory) -> None:
    """Raises ValueError if torch would number this machine's GPUs differently from the inventory."""
    is_in_order = os.environ.get(CUDA_DEVICE_ORDER) == OURS[CUDA_DEVICE_ORDER]
    if not is_in_order and len({(gpu.name, gpu.memory_bytes) for gpu in inventory.gpus}) > 1:
        raise ValueError(
            f"{CUDA_DEVICE_ORDER}: this machine has unequal GPUs, and CUDA would put the fastest first; set it to "
            f"{OURS[CUDA_DEVICE_ORDER]} before torch is imported"
        )


def _query_gpus() -> list[tuple[str, str, int | None, str]]:
    """(index, uuid, bytes, name) of every GPU; none where there is no NVIDIA driver. Some do not tell their memory.

    Of one that is cut into slices torch sees a slice and not the whole. Raises ValueError for a driver that hangs:
    without GPUs the batch would take days on the CPU.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return []
    try:
        listing = subprocess.run(NVIDIA_SMI, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=True).stdout
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"nvidia-smi did not answer within {ANSWER_SECONDS:.0f} s: restart the driver, or set "
            "CUDA_VISIBLE_DEVICES to an empty string to render without GPUs"
        ) from None
    except (OSError, subprocess.SubprocessError):
        return []
    found: list[tuple[str, str, int | None, str]] = []
    for line in listing.strip().splitlines():
        index, uuid, size, mig, name = line.split(", ", 4)
        memory = int(size) * 2**20 if size.isdigit() else None
        found.append((index, uuid, None, MIG_SLICE) if mig == "Enabled" else (index, uuid, memory, name))
    return found


def _visible(gpus: list[tuple[str, str, int | None, str]]) -> list[DeviceInfo]:
    """The GPUs in torch's order: that of `CUDA_VISIBLE_DEVICES`, which ends at the first invalid entry."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [index for index, *_ in gpus] if visible is None else [name.strip() for name in visible.split(",")]
    devices: list[DeviceInfo] = []
    for name in names:
        whole = next((gpu for gpu in gpus if name and (name == gpu[0] or gpu[1].startswith(name))), None)
        if whole is not None:
            devices.append(DeviceInfo(whole[3], whole[2], index=len(devices)))
        elif name.startswith("MIG-"):  # nvidia-smi lists no slices here
            devices.append(DeviceInfo(MIG_SLICE, None, index=len(devices)))
        else:
            break
    return devices
