"""A worker's device: opening it, its memory, what its errors mean, and the first calls of a CPU's kernels."""

from __future__ import annotations

import psutil
import torch

from ltx_dist.engine.executor import WorkerStartError
from ltx_dist.messages import first_line
from ltx_dist.pipeline.worker import Worker
from ltx_dist.placement.fitting import CUDA_CONTEXT
from ltx_dist.weights.self_check import check_convolution


def open_device(worker: Worker) -> torch.device:
    """The worker's device. Raises WorkerStartError if torch finds no GPU for a worker that needs one.

    Under Ray a worker sees only the GPU it was given, as number 0; in this process it sees all of them.
    """
    if worker.device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise WorkerStartError(
            f"worker {worker.worker_id}: torch {torch.__version__} finds no GPU here; "
            "install a CUDA build of torch, or set placement.device=cpu"
        )
    device = torch.device("cuda", worker.device_index % torch.cuda.device_count())
    torch.cuda.set_device(device)
    keep_to(device, worker.capacity)
    return device


def notices_of_start(device: torch.device, worker: Worker) -> list[str]:
    """Warnings about the device, before anything is loaded.

    Raises WorkerStartError if its 3D convolutions are wrong beyond any rounding: every clip would be noise.
    """
    if device.type == "cpu":
        return []
    lines = [line for line in (missing_memory(device, worker),) if line is not None]
    try:
        check = check_convolution(device)
    except RuntimeError as error:  # the device is too full for the check; stages have fallbacks for that
        return [*lines, f"3D convolutions could not be checked: {first_line(error)}"]
    if check.is_wrong:
        raise WorkerStartError(f"worker {worker.worker_id}: {check.warning}")
    return lines if check.warning is None else [*lines, check.warning]


def keep_to(device: torch.device, capacity: int | None) -> None:
    """Limit torch to the planned memory of the device, less what CUDA and its libraries need.

    With Windows' driver, also in WSL2, a process that takes more than the device has gets no error: memory is paged to
    the host, which is a hundred times slower. Also, `placement.memory_gb` may leave the rest to other programs.
    """
    if capacity is None:
        return
    _, total = torch.cuda.mem_get_info(device)
    fraction = max(0.0, capacity - CUDA_CONTEXT) / total
    torch.cuda.set_per_process_memory_fraction(min(1.0, fraction), device)


def missing_memory(device: torch.device, worker: Worker) -> str | None:
    """A warning if other programs use memory that the plan needs, else None. Call it before loading anything."""
    if device.type != "cuda" or not worker.peak_bytes:
        return None
    free, total = torch.cuda.mem_get_info(device)
    needed = worker.peak_bytes - CUDA_CONTEXT  # the context is allocated already
    if free >= needed:
        return None
    return (
        f"the plan needs {needed / 1e9:.1f} GB of the device, and {free / 1e9:.1f} of {total / 1e9:.1f} GB are free; "
        "`nvidia-smi` shows which programs use the rest; end them, or set placement.memory_gb"
    )


def reset_peak(device: torch.device) -> None:
    """Start counting a stage's memory, with only its own component on the device."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int | None:
    """Peak bytes that torch held since `reset_peak`, in use or kept for later; None on a CPU, which does not count."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None


def refused_allocations(device: torch.device) -> int:
    """Number of this process's allocations that the device had no memory for, even if a library caught the error."""
    return torch.cuda.memory_stats(device).get("num_ooms", 0) if device.type == "cuda" else 0


def made_on(device: torch.device) -> str:
    """What decides the low-order bits of this device's results, besides settings and package versions, as a text."""
    if device.type == "cpu":
        return f"cpu, torch threads: {torch.get_num_threads()}"
    return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"


def memory_in_use(device: torch.device) -> int | None:
    """Bytes allocated on the device now; on a CPU, by this whole process."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return psutil.Process().memory_info().rss


SHORTAGES = (
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "HIP out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "GET was unable to find an engine to execute this computation",
    "FIND was unable to find an engine to execute this computation",
)
"""Messages when memory is refused outside torch's allocator: for kernels loaded while the allocator holds all memory,
for page-locked memory, for handles of cuBLAS and cuDNN, and for a convolution none of whose engines has room for its
workspace (torch, aten/src/ATen/native/cudnn/Conv_v8.cpp, catches each engine's OutOfMemoryError, then raises this)."""

POSSIBLE_SHORTAGES = (
    "CUDA error",
    "CUDA driver error",
    "CUDNN_STATUS_INTERNAL_ERROR",
    "CUBLAS_STATUS_INTERNAL_ERROR",
    "cuDNN error",
    "some issues during automatic conversion of the weights",
)
"""Messages with many possible causes; if almost no memory is free, that is the likely one. The last is transformers',
which catches the OutOfMemoryError of a layer that it quantises, and raises without its text (core_model_loading.py)."""

FULL_BYTES = 256 << 20
"""A device with fewer free bytes is full; more than the largest quantised layer or a library's handle takes."""


def is_shortage(error: RuntimeError, device: torch.device | None = None) -> bool:
    """Whether the error says that the device ran out of memory, in the words of torch's allocator or another library.

    If the message may have other causes, it depends on whether `device` still works and is almost full.
    """
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError) or any(words in text for words in SHORTAGES):
        return True
    return any(words in text for words in POSSIBLE_SHORTAGES) and device is not None and _is_full(device)


def _is_full(device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    try:
        torch.cuda.synchronize(device)
        free, _ = torch.cuda.mem_get_info(device)
    except RuntimeError:  # the device is lost, not full
        return False
    return free < FULL_BYTES


def is_lost(device: torch.device, error: Exception) -> bool:
    """Whether the error has made the device unusable for this process: CUDA then raises at every call.

    If the worker stayed, it would fail every clip it is given, and always be the first to be free for the next.
    """
    if device.type == "cpu" or isinstance(error, torch.OutOfMemoryError):
        return False
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return True
    return False


VECTOR_FUNCTIONS = (
    "acos", "asin", "atan", "cos", "erf", "erfc", "erfinv", "exp", "log", "log10", "log2", "sin",
    "sqrt", "tan", "tanh", "trunc",
)  # fmt: skip
"""The functions that torch passes to oneMKL. For version 2024.2 one is enough; others may keep a state per function."""


def settle_kernels() -> None:
    """Have every vector function choose its kernels now, in the calling thread alone: one element is not divided.

    torch computes cos, exp, sqrt and others of float32 and float64 tensors with oneMKL's vector functions, called from
    several threads at once. Their first call in a process detects the CPU. In version 2024.2, the one in torch's
    wheels, that call stores the CPU's number where all threads read the row of a kernel table, and replaces it with the
    row a few instructions later, without a lock. On a CPU with AVX-512 the CPU's number (9) is the row of AVX2's least
    accurate kernels, so a thread that reads it in between computes its part of that one call with errors of 1e-4.
    A transformer's rotary embedding is often the first cos and sin of a process: in about one process in twenty, the
    first clip had other pixels. See pytorch/pytorch#188792, which observed the kernels, and docs/decisions.md.
    """
    for dtype in (torch.float32, torch.float64):
        value = torch.full((1,), 0.5, dtype=dtype)
        for name in VECTOR_FUNCTIONS:
            getattr(torch, name)(value)
