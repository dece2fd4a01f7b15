"""Finds this machine's devices without importing torch: planning must work, and fail, in milliseconds."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil

from ltx_dist.environment import CUDA_DEVICE_ORDER, CUDA_VISIBLE_DEVICES, OURS
from ltx_dist.messages import first_line
from ltx_dist.pipeline.worker import DeviceWish
from ltx_dist.placement.inventory import DeviceInfo, Inventory

FIELDS = ("index", "uuid", "memory.total", "mig.mode.current", "compute_cap", "name")
"""Fields to query from nvidia-smi for each GPU. The name comes last, because it may contain a comma."""

CAPABILITY = "compute_cap"
"""The field that old drivers do not know."""

NOT_A_FIELD = "is not a valid field to query"

NO_GPU_CODES = (0, 6, 9, 12)
"""Exit codes of an nvidia-smi that lists no GPU because there is none: none found, no driver loaded, no NVML."""

WITHOUT_GPUS = "set CUDA_VISIBLE_DEVICES to an empty string to render without GPUs"

HIDES_ALL = ("", "-1")
"""Values of CUDA_VISIBLE_DEVICES that leave no GPU visible."""

ANSWER_SECONDS = 60.0
"""Eight cards without persistence mode take 20 s and more."""

MIG_SLICE = "MIG slice"
"""`DeviceInfo.name` of a part of a GPU, whose memory nvidia-smi does not list here."""


DESCRIBED = "GPU as described"
"""`DeviceInfo.name` of a GPU that is only described by the config."""


def local_inventory(device: DeviceWish = "auto") -> Inventory:
    """GPUs that `CUDA_VISIBLE_DEVICES` leaves visible, usable CPU cores, and the host's memory.

    device: what is wanted. For `cpu` no GPU is listed, so that a broken driver does not matter. Raises ValueError for a
    driver that hangs or fails.
    """
    gpus = () if device == "cpu" else _visible(_query_gpus())
    return Inventory(tuple(gpus), _usable_cores(), host_memory_bytes())


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

    So a machine that is elsewhere, or not bought yet, can be planned for; its host memory is unknown. Otherwise the
    inventory is returned as it is.
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


def visible_devices(gpus: Sequence[DeviceInfo]) -> str:
    """The value of CUDA_VISIBLE_DEVICES that hides all but these of the GPUs in `local_inventory`."""
    given = os.environ.get(CUDA_VISIBLE_DEVICES)
    return ",".join(str(gpu.index) if given is None else given.split(",")[gpu.index].strip() for gpu in gpus)


def _query_gpus() -> list[tuple[str, DeviceInfo]]:
    """UUID and description of every GPU of this machine; none where there is no NVIDIA driver.

    Raises ValueError for a driver that hangs or fails: without GPUs the batch would take days on the CPU.
    """
    if os.environ.get(CUDA_VISIBLE_DEVICES) in HIDES_ALL:
        return []
    try:
        fields, answer = FIELDS, _ask(FIELDS)
        if NOT_A_FIELD in answer.stdout + answer.stderr:
            fields = tuple(field for field in FIELDS if field != CAPABILITY)
            answer = _ask(fields)
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"nvidia-smi did not answer within {ANSWER_SECONDS:.0f} s: restart the driver, or {WITHOUT_GPUS}"
        ) from None
    except OSError:
        return []
    # Warnings may stand beside the rows, each of which begins with the GPU's index.
    found = [_described(_row(fields, line)) for line in answer.stdout.splitlines() if line[:1].isdigit()]
    if not found and answer.returncode not in NO_GPU_CODES:
        said = first_line(answer.stdout + answer.stderr)
        raise ValueError(f"nvidia-smi failed: {said}; reload or reinstall the driver, or {WITHOUT_GPUS}")
    return found


def _ask(fields: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    return subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False)


def _row(fields: tuple[str, ...], line: str) -> dict[str, str]:
    """Raises ValueError for a line without all of these fields: to skip a GPU would shift the indices of the next."""
    cells = line.split(", ", len(fields) - 1)
    if len(cells) < len(fields) or not cells[0].isdigit():
        raise ValueError(
            f"nvidia-smi listed a GPU as {line!r}, without all fields; update the driver, or {WITHOUT_GPUS}"
        )
    return dict(zip(fields, cells, strict=True))


def _described(row: dict[str, str]) -> tuple[str, DeviceInfo]:
    """UUID and description from one row of nvidia-smi.

    A GPU that is cut into slices, and some others, have unknown memory.
    """
    memory = row["memory.total"]
    size = int(memory) * 2**20 if memory.isdigit() else None
    capability = re.fullmatch(r"(\d+)\.(\d+)", row.get(CAPABILITY, ""))
    device = DeviceInfo(
        row["name"],
        size,
        index=int(row["index"]),
        compute_capability=(int(capability[1]), int(capability[2])) if capability else None,
    )
    if row["mig.mode.current"] == "Enabled":
        device = replace(device, name=MIG_SLICE, memory_bytes=None)
    return row["uuid"], device


def _visible(gpus: list[tuple[str, DeviceInfo]]) -> list[DeviceInfo]:
    """The GPUs in torch's order: that of `CUDA_VISIBLE_DEVICES`, which ends at the first invalid entry."""
    visible = os.environ.get(CUDA_VISIBLE_DEVICES)
    names = [str(gpu.index) for _, gpu in gpus] if visible is None else [name.strip() for name in visible.split(",")]
    devices: list[DeviceInfo] = []
    for name in names:
        named = (gpu for uuid, gpu in gpus if name and (name == str(gpu.index) or uuid.startswith(name)))
        device = next(named, None)
        if device is None and name.startswith("MIG-"):  # nvidia-smi lists no slices here
            device = DeviceInfo(MIG_SLICE, None)
        if device is None:
            break
        devices.append(replace(device, index=len(devices)))
    return devices
