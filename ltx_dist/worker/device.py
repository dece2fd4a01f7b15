"""What a worker asks of its device: which it is, how much memory a stage took, whether it is still usable."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from ltx_dist.engine.executor import WorkerStartError
from ltx_dist.pipeline.worker import Worker


def open_device(worker: Worker) -> torch.device:
    """Raises WorkerStartError when torch finds no GPU for a worker that is to have one.

    Under Ray a worker sees only the GPU it was given, as number 0; in this process it sees all of them.
    """
    if worker.device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise WorkerStartError(
            f"worker {worker.worker_id}: torch {torch.__version__} finds no GPU here; "
            "install a CUDA build of torch, or set placement.device=cpu"
        )
    return torch.device("cuda", worker.device_index % torch.cuda.device_count())


def reset_peak(device: torch.device) -> None:
    """Count a stage's memory from here: with its own component on the device and no other."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int | None:
    """Most bytes allocated at a time since `reset_peak`; None on a CPU, which does not count."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def memory_in_use(device: torch.device) -> int | None:
    """Bytes allocated now; on a CPU those of this whole process, None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def is_shortage(error: RuntimeError) -> bool:
    """Whether the device had no memory: said by torch's allocator, or by a library that allocates for itself."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _ALLOCATION_FAILED)


_ALLOCATION_FAILED = ("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def is_lost(device: torch.device, error: Exception) -> bool:
    """Whether the error has made the device useless for this process: CUDA then raises again at every call.

    A worker that stayed would fail every clip it is given, and be the first to be free for the next.
    """
    if device.type == "cpu" or isinstance(error, torch.OutOfMemoryError):
        return False
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return True
    return False
