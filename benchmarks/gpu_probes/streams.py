"""Measures 13B, which no 24 GB card holds, streamed, resident and in float8; also shared passes and reading weights."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from .models import checkpoint_of, request_of
from .rendering import DENOISE, ENCODE, ours, worker_of
from .scale import GB, Row, Scale, emptied, memory, timed

AIM = "streamed <= 1.15 of resident"


def streamed(scale: Scale) -> Iterator[Row]:
    """Seconds for 4 steps of a clip, the better of two clips, resident and streamed; bytes copied, and the ratio."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = checkpoint_of(scale, "13b", Path(folder))
        requests = [request_of(scale, index, scale.shapes[0], 4) for index in range(2)]
        seconds: dict[str, float] = {}
        for way in ("resident", "streamed"):
            emptied(scale)
            started = time.perf_counter()
            worker = worker_of(scale, checkpoint, way)
            start_s = time.perf_counter() - started
            ours(worker, requests[:1])
            rendered = ours(worker, requests)
            denoising = [report.seconds for report in rendered.reports[len(requests) : 2 * len(requests)]]
            seconds[way] = min(denoising)
            row: Row = {"case": f"13b: {way}", "start_s": round(start_s, 1), "denoise_s": round(seconds[way], 3)}
            if way == "streamed":
                mover = worker._components._movers["transformer"]
                copied = sum(block.num_bytes for block in mover._blocks) * 4
                row |= {"copied_gb": round(copied / GB, 1), "copied_gb_per_s": round(copied / seconds[way] / GB, 1)}
                ratio = seconds["streamed"] / seconds["resident"]
                row |= {"over_resident": round(ratio, 3), "ok": ratio <= 1.15 or scale.is_tiny, "aim": AIM}
            yield row | memory(scale)
            del worker


def float8(scale: Scale) -> Iterator[Row]:
    """Seconds and bytes with a transformer kept in 8 bits, time-sliced and streamed."""
    from ltx_dist.pipeline.storage import Storage

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = checkpoint_of(scale, "13b", Path(folder))
        requests = [request_of(scale, 0, scale.shapes[0], 4)]
        for way in ("time_sliced", "streamed"):
            emptied(scale)
            worker = worker_of(scale, checkpoint, way, storage=Storage("float8"))
            ours(worker, requests)
            rendered = ours(worker, requests)
            yield {"case": f"13b float8: {way}", "denoise_s": round(rendered.reports[1].seconds, 3), **memory(scale)}
            del worker


def shared(scale: Scale) -> Iterator[Row]:
    """Seconds per clip if 1, 2, 4 or 8 small clips share a pass of the transformer."""
    shape = (256, 256, 25) if scale.is_cuda else scale.shapes[0]
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = checkpoint_of(scale, "2b", Path(folder))
        worker = worker_of(scale, checkpoint, "resident")
        requests = [request_of(scale, index, shape, 8 if scale.is_cuda else 1) for index in range(8)]
        *conditionings, _ = worker.run(ENCODE, requests)
        for size in (1, 2, 4, 8):
            best = float("inf")
            for _ in range(2):
                started = time.perf_counter()
                for start in range(0, 8, size):
                    some = slice(start, start + size)
                    *_, report = worker.run(DENOISE, requests[some], *conditionings[some])
                    assert report.error is None, report.error
                best = min(best, time.perf_counter() - started)
            yield {"case": f"{size} in a pass", "clip_s": round(best / 8, 4)}


def reading(scale: Scale) -> Iterator[Row]:
    """GB/s for a safetensors file of 4 GB that is mapped and copied to the device, or read straight onto it."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    count, elements = (32, 64 * 2**20) if scale.is_cuda else (4, 2**16)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        save_file({f"{i}": torch.zeros(elements, dtype=torch.bfloat16) for i in range(count)}, path)
        size = path.stat().st_size

        def mapped() -> Any:
            with safe_open(path, framework="pt") as file:
                return [file.get_tensor(name).to(scale.device) for name in file.keys()]  # noqa: SIM118

        def straight() -> Any:
            with safe_open(path, framework="pt", device=str(scale.device)) as file:
                return [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118

        for name, way in {"mapped": mapped, "straight": straight}.items():
            for state in ("first", "again"):
                emptied(scale)
                seconds, made = timed(scale, way)
                del made
                yield {"case": f"{name}, {state}", "gb_per_s": round(size / seconds / GB, 2)}
