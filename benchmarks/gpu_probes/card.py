"""Measures the card itself: what it is, how fast it copies, and whether its convolutions are right."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ltx_dist.weights.numa import cpus_near, running_on

from .scale import GB, NEEDS_CUDA, Row, Scale, emptied, memory, timed

LAST_BLOCK = (1, 128, 121, 120, 176)
"""Input of a convolution in the last decoder block (VAE 0.9.5) at 704x480x121: (1, channels, frames, height, width)."""

MAX_ERROR = 0.02
"""Largest accepted difference from float32, divided by the largest value. bfloat16 has 8 significant bits, while the
results of a wrong kernel are off by their own size."""

MAX_WORKSPACE = 5.0
"""Largest accepted ratio of the bytes in use to those of input and output. An implicit GEMM needs little memory, but
vol2col needs 27 columns for each element."""


def facts(scale: Scale) -> Iterator[Row]:
    """Versions, compute capability, the card's memory from three sources, and what the CUDA context takes, by step."""
    row: Row = {"case": "versions", "torch": torch.__version__, "cuda": torch.version.cuda}
    yield row | {"cudnn": torch.backends.cudnn.version(), "arch": torch.cuda.get_arch_list() if scale.is_cuda else []}
    if not scale.is_cuda:
        yield {"case": "context", "skipped": "needs a CUDA device"}
        return
    query = ["nvidia-smi", "--query-gpu=name,memory.total,memory.used,compute_cap", "--format=csv,noheader,nounits"]
    smi = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    properties = torch.cuda.get_device_properties(scale.device)
    free, total = torch.cuda.mem_get_info(scale.device)
    yield {
        "case": "memory",
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "nvidia_smi": smi,
        "torch_total_gb": round(properties.total_memory / GB, 3),
        "driver_total_gb": round(total / GB, 3),
        "free_after_init_gb": round(free / GB, 3),
    }
    x = torch.randn(1024, 1024, device=scale.device, dtype=torch.bfloat16)
    heads = torch.randn(1, 8, 512, 64, device=scale.device, dtype=torch.bfloat16)
    volume = torch.randn(1, 16, 9, 32, 32, device=scale.device, dtype=torch.bfloat16)
    weight = torch.randn(16, 16, 3, 3, 3, device=scale.device, dtype=torch.bfloat16)
    steps: dict[str, Callable[[], Any]] = {
        "init": lambda: None,
        "GEMM": lambda: x @ x,
        "attention": lambda: torch.nn.functional.scaled_dot_product_attention(heads, heads, heads),
        "Conv3d": lambda: torch.nn.functional.conv3d(volume, weight, padding=1),
    }
    for name, step in steps.items():
        step()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info(scale.device)
        outside = total - free - torch.cuda.memory_reserved(scale.device)
        yield {"case": f"context after {name}", "outside_allocator_gb": round(outside / GB, 3)}


def convolution(scale: Scale) -> Iterator[Row]:
    """Error, memory and seconds of a Conv3d of the decoder's last block in bfloat16, float16 and TF32."""
    shape = LAST_BLOCK if scale.is_cuda else (1, 8, 9, 16, 16)
    generator = torch.Generator(scale.device).manual_seed(0)
    x = torch.randn(shape, device=scale.device, generator=generator)
    weight = torch.randn(shape[1], shape[1], 3, 3, 3, device=scale.device, generator=generator) / (27 * shape[1]) ** 0.5
    torch.backends.cudnn.allow_tf32 = False
    expected = torch.nn.functional.conv3d(x, weight, padding=1)
    for name, dtype in {"bfloat16": torch.bfloat16, "float16": torch.float16, "tf32": torch.float32}.items():
        torch.backends.cudnn.allow_tf32 = name == "tf32"
        inside, kernel = x.to(dtype), weight.to(dtype)
        emptied(scale)
        before = torch.cuda.memory_allocated(scale.device) if scale.is_cuda else 0
        seconds, found = timed(scale, lambda a=inside, w=kernel: torch.nn.functional.conv3d(a, w, padding=1))
        row: Row = {"case": name, "first_seconds": round(seconds, 4)}
        seconds, found = timed(scale, lambda a=inside, w=kernel: torch.nn.functional.conv3d(a, w, padding=1))
        error = ((found.float() - expected).abs().max() / expected.abs().max()).item()
        row |= {"seconds": round(seconds, 4), "error": error, "aim": f"error <= {MAX_ERROR}", "ok": error <= MAX_ERROR}
        if scale.is_cuda:
            taken = torch.cuda.max_memory_allocated(scale.device) - before
            share = taken / (inside.nbytes + found.nbytes)
            row |= {"peak_over_tensors": round(share, 2), **memory(scale)}
            row["ok"] = row["ok"] and share <= MAX_WORKSPACE
        yield row
        del inside, kernel, found


def link(scale: Scale) -> Iterator[Row]:
    """GB/s between host and card, page-locked, pageable and beside matrix products; seconds to lock and to allocate."""
    if not scale.is_cuda:
        yield NEEDS_CUDA
        return
    size = 1 << 30
    there = torch.empty(size, dtype=torch.uint8, device=scale.device)
    pageable = torch.ones(size, dtype=torch.uint8)
    seconds, locked = timed(scale, lambda: torch.ones(size, dtype=torch.uint8).pin_memory())
    yield {"case": "page-locking 1 GiB", "seconds": round(seconds, 3)}
    copies: dict[str, Callable[[], Any]] = {
        "to the card, page-locked": lambda: there.copy_(locked, non_blocking=True),
        "to the card, pageable": lambda: there.copy_(pageable),
        "to the host, page-locked": lambda: locked.copy_(there, non_blocking=True),
        "to the host, pageable": lambda: pageable.copy_(there),
    }
    for name, copy in copies.items():
        best = min(timed(scale, copy)[0] for _ in range(4))
        yield {"case": name, "gb_per_s": round(size / best / GB, 1)}
    yield from _by_socket(scale, there)
    yield from _beside_a_product(scale, there, locked)
    emptied(scale)
    for size_gb in (4, 14):
        seconds, held = timed(scale, lambda n=size_gb: torch.empty(n * GB, dtype=torch.uint8, device=scale.device))
        del held
        freed, _ = timed(scale, torch.cuda.empty_cache)
        yield {"case": f"{size_gb} GB", "allocate_s": round(seconds, 4), "empty_cache_s": round(freed, 4)}


def _by_socket(scale: Scale, there: torch.Tensor) -> Iterator[Row]:
    """GB/s from page-locked memory on the card's own NUMA node and on the others, if there are others."""
    near = cpus_near(scale.device)
    far = os.sched_getaffinity(0) - near
    if not near or not far:
        yield {"case": "copies by NUMA node", "skipped": f"{len(near)} CPUs near the card, {len(far)} elsewhere"}
        return
    hosts: dict[str, torch.Tensor] = {}  # held together, as torch would give the first one's memory to the second
    for name, cpus in {"the card's node": near, "other nodes": far}.items():
        with running_on(cpus):
            hosts[name] = torch.empty(there.nbytes, dtype=torch.uint8, pin_memory=True)
    for name, locked in hosts.items():
        best = min(timed(scale, lambda host=locked: there.copy_(host, non_blocking=True))[0] for _ in range(4))
        yield {"case": f"to the card, page-locked, on {name}", "gb_per_s": round(there.nbytes / best / GB, 1)}


def _beside_a_product(scale: Scale, there: torch.Tensor, locked: torch.Tensor) -> Iterator[Row]:
    """How much a copy and matrix products that run at the same time slow each other down."""
    side = torch.cuda.Stream(scale.device)
    x = torch.randn(8192, 8192, device=scale.device, dtype=torch.bfloat16)

    def products() -> None:
        for _ in range(20):
            torch.matmul(x, x)

    def both() -> None:
        with torch.cuda.stream(side):
            there.copy_(locked, non_blocking=True)
        products()

    products()
    alone, _ = timed(scale, products)
    copy, _ = timed(scale, lambda: there.copy_(locked, non_blocking=True))
    together, _ = timed(scale, both)
    yield {
        "case": "copy beside matrix products",
        "products_s": round(alone, 4),
        "copy_s": round(copy, 4),
        "both_s": round(together, 4),
        "hidden_share": round((alone + copy - together) / min(alone, copy), 2),
        "tflops": round(20 * 2 * 8192**3 / alone / 1e12),
    }
