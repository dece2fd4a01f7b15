"""Checks GPUs, paging by their driver, and shared memory."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ltx_dist.doctor.finding import Finding, failure, ok, warning

FIELDS = (
    "index,name,memory.total,memory.free,pcie.link.gen.max,pcie.link.width.current,pcie.link.width.max,driver_version"
)

FREE_SHARE = 0.9
"""A GPU with less free memory than this is in use by another program; a desktop alone takes a few percent."""

SHARED_MEMORY = Path("/dev/shm")
MIN_SHARED_BYTES = 2 * 10**9
"""Free bytes below which to warn: latents and embeddings of some clips fit. Ray's object store is kept there."""

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Gpu:
    """A line of nvidia-smi. Bytes and link are None if the board does not report them."""

    index: str
    name: str
    total: int | None
    free: int | None
    generation: int | None
    width: int | None
    max_width: int | None
    driver: str


def query_gpus() -> list[Gpu]:
    """Every GPU of this machine; none where there is no NVIDIA driver. Raises OSError when it does not answer."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu={FIELDS}", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0:
        words = (done.stdout + done.stderr).strip().splitlines()
        raise OSError(words[0] if words else f"nvidia-smi ended with {done.returncode}")
    return [_gpu(line.split(", ")) for line in done.stdout.strip().splitlines()]


def count_gpus() -> int:
    """The number of GPUs; 0 if the driver does not answer, which the check of GPUs reports."""
    try:
        return len(query_gpus())
    except (OSError, subprocess.SubprocessError):
        return 0


def _gpu(cells: list[str]) -> Gpu:
    index, name, *numbers, driver = cells
    total, free, generation, width, max_width = (int(cell) if cell.isdigit() else None for cell in numbers)
    total_bytes, free_bytes = (None if size is None else size * MIB for size in (total, free))
    return Gpu(index, name, total_bytes, free_bytes, generation, width, max_width, driver)


def check_gpus(wants_gpu: bool) -> Iterator[Finding]:
    try:
        gpus = query_gpus()
    except (OSError, subprocess.SubprocessError) as error:
        yield failure("gpu", f"the driver does not answer: {error}", "see `nvidia-smi`; reload or reinstall the driver")
        return
    if not gpus:
        found = failure if wants_gpu else warning
        yield found(
            "gpu", "no NVIDIA driver (nvidia-smi was not found)", "install one, or render on the CPU, as the demo does"
        )
    for gpu in gpus:
        yield _finding(gpu)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if gpus and visible is not None:
        yield warning("gpu", f"CUDA_VISIBLE_DEVICES={visible} hides all others", "unset it to use every GPU")


def _finding(gpu: Gpu) -> Finding:
    subject, link = f"gpu {gpu.index}", f"PCIe {gpu.generation} x{gpu.width}"
    free = "memory unknown" if gpu.free is None else f"{gpu.free / 1e9:.1f} of {(gpu.total or 0) / 1e9:.1f} GB free"
    text = f"{gpu.name}, {free}, {link if gpu.generation and gpu.width else 'link unknown'}, driver {gpu.driver}"
    if gpu.free is not None and gpu.total and gpu.free < FREE_SHARE * gpu.total:
        return warning(subject, text, "another program uses its memory: see `nvidia-smi`, or set placement.memory_gb")
    if gpu.width is not None and gpu.max_width is not None and gpu.width < gpu.max_width:
        return warning(subject, text, f"it supports x{gpu.max_width}; swapping weights is slower in this slot")
    return ok(subject, text)


def check_paging(num_gpus: int) -> Iterator[Finding]:
    """Warn where a full GPU is paged to host memory, as by the Windows driver and under WSL: 100 times slower."""
    if not num_gpus:
        return
    if platform.system() == "Windows" or "microsoft" in platform.release().lower():
        yield warning(
            "paging",
            "this driver pages GPU memory to the host instead of failing when it is full",
            'NVIDIA Control Panel, Manage 3D settings, CUDA - Sysmem Fallback Policy: "Prefer No Sysmem Fallback"',
        )
    else:
        yield ok("paging", "this driver does not page GPU memory")


def check_shared_memory() -> Iterator[Finding]:
    if not SHARED_MEMORY.is_dir():
        return
    size = shutil.disk_usage(SHARED_MEMORY)
    text = f"{size.free / 1e9:.1f} of {size.total / 1e9:.1f} GB free in {SHARED_MEMORY}"
    if size.free < MIN_SHARED_BYTES:
        yield warning("shared memory", text, "Ray falls back to the disk; give a container more: --shm-size=8g")
    else:
        yield ok("shared memory", text)
