"""Defines the two sizes at which every probe runs: `full` on a card, and `tiny` on a CPU, to show that it works."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

Row = dict[str, Any]
"""One measurement. `case` names it; `ok` is present if an `aim` was written down before the run."""

GB = 10**9


@dataclass(frozen=True, slots=True)
class Scale:
    """shapes: (height, width, num_frames). Probes of a single shape use the first."""

    name: str
    device: torch.device
    dtype: torch.dtype
    shapes: tuple[tuple[int, int, int], ...]

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def precision(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def is_tiny(self) -> bool:
        return self.name == "tiny"


def scale_of(name: str) -> Scale:
    """The scale of this name. Raises SystemExit if it is `full` and there is no card."""
    if name == "tiny":
        device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
        return Scale(name, device, torch.float32, ((64, 64, 9),))
    if not torch.cuda.is_available():
        raise SystemExit("no GPU here; --scale tiny runs on a CPU")
    shapes = ((480, 704, 121), (512, 768, 97), (704, 1216, 121))
    return Scale(name, torch.device("cuda", 0), torch.bfloat16, shapes)


def timed(scale: Scale, call: Callable[[], Any]) -> tuple[float, Any]:
    """The seconds until the device is done, and what the call returned."""
    wait(scale)
    started = time.perf_counter()
    result = call()
    wait(scale)
    return time.perf_counter() - started, result


def wait(scale: Scale) -> None:
    if scale.is_cuda:
        torch.cuda.synchronize(scale.device)


def emptied(scale: Scale) -> None:
    """Free what the previous case left on the device, and reset the counters."""
    gc.collect()
    if scale.is_cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(scale.device)
        torch.cuda.reset_accumulated_memory_stats(scale.device)


def memory(scale: Scale) -> Row:
    """Peaks since `emptied`, in GB, of tensors and of the allocator; GB in use on the card now; number of retries.

    A retry is an allocation for which the allocator first had to free its cache: an early sign of running short.
    """
    if not scale.is_cuda:
        return {}
    free, total = torch.cuda.mem_get_info(scale.device)
    return {
        "allocated_gb": round(torch.cuda.max_memory_allocated(scale.device) / GB, 3),
        "reserved_gb": round(torch.cuda.max_memory_reserved(scale.device) / GB, 3),
        "card_gb": round((total - free) / GB, 3),
        "retries": torch.cuda.memory_stats(scale.device)["num_alloc_retries"],
    }


def skipped(why: str) -> Row:
    return {"case": "all", "skipped": why}


NEEDS_CUDA = skipped("needs a CUDA device")
