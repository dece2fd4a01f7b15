"""Measures what a user gets: whole batches, planned as by `plan`, under caps that make a large card a small one."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .models import checkpoint_of, plain_pipeline, request_of
from .rendering import theirs
from .scale import GB, Row, Scale, emptied, memory

CAPS_GB = (24, 16, 12, 8, 6)


def capped(scale: Scale) -> Iterator[Row]:
    """Render 4 clips of 8 steps under each cap: no fallback may be taken, and no allocation retried."""
    yield from _batches(scale, CAPS_GB if scale.is_cuda else (None,), 8 if scale.is_cuda else 2, short=1.0)


def short(scale: Scale) -> Iterator[Row]:
    """Render the same with 5 % less memory than was planned for: every clip must end."""
    if scale.is_cuda:
        yield from _batches(scale, CAPS_GB, 8, short=0.95)
    else:
        yield {"case": "all", "skipped": "a CPU's memory cannot be capped"}


def offload(scale: Scale) -> Iterator[Row]:
    """Render 40 steps on 24 GB: with diffusers' model and group offload, and as we plan it (which also makes mp4s)."""
    if not scale.is_cuda:
        yield {"case": "all", "skipped": "diffusers offloads to a CUDA device"}
        return
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = checkpoint_of(scale, "2b", Path(folder))
        requests = [request_of(scale, index, scale.shapes[0], 40) for index in range(2)]
        for name in ("model", "group"):
            emptied(scale)
            pipeline = plain_pipeline(scale, checkpoint)
            if name == "model":
                pipeline.enable_model_cpu_offload(device=scale.device)
            else:
                pipeline.enable_group_offload(
                    onload_device=scale.device, offload_type="leaf_level", use_stream=True, record_stream=True
                )
            started = time.perf_counter()
            rendered = theirs(pipeline, requests)
            each = (time.perf_counter() - started) / len(requests)
            digests = [digest[:12] for digest in rendered.latents]
            yield {"case": f"diffusers, {name} offload", "clip_s": round(each, 2), "latents": digests, **memory(scale)}
            del pipeline
        yield from _batches(scale, (24,), 40, short=1.0, num_clips=6)


def _batches(scale: Scale, caps: Sequence[float | None], steps: int, short: float, num_clips: int = 4) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = checkpoint_of(scale, "2b", Path(folder))
        requests = tuple(request_of(scale, index, scale.shapes[0], steps) for index in range(num_clips))
        for cap in caps:
            emptied(scale)
            row: Row = {
                "case": "whole machine" if cap is None else f"{cap} GB" + ("" if short == 1.0 else ", 5 % less")
            }
            try:
                yield row | _rendered(scale, checkpoint, requests, cap, short)
            except (ValueError, RuntimeError) as error:
                yield row | {"ok": False, "error": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}


def _rendered(
    scale: Scale, checkpoint: Any, requests: tuple[Any, ...], cap_gb: float | None, short: float
) -> dict[str, Any]:
    from ltx_dist.engine.loop import BatchLoop
    from ltx_dist.inputs.config import RenderConfig
    from ltx_dist.models.ltx_video.presets import preset_for
    from ltx_dist.placement.inventory import DeviceInfo, Inventory
    from ltx_dist.run.batch import Batch
    from ltx_dist.scheduling.scheduler import Scheduler
    from ltx_dist.worker.local_executor import LocalExecutor
    from ltx_dist.worker.spec import WorkerSpec

    wishes = {"layout": "shared", "device": scale.device.type, "memory_gb": cap_gb}
    config = RenderConfig.model_validate({"placement": wishes, "output": {"preset": "ultrafast"}})
    batch = Batch(config, checkpoint, preset_for("auto", checkpoint), requests)
    gpus: tuple[DeviceInfo, ...] = ()
    if scale.is_cuda:
        total = torch.cuda.get_device_properties(scale.device).total_memory
        gpus = (DeviceInfo(torch.cuda.get_device_name(scale.device), total),)
    inventory = Inventory(gpus, torch.get_num_threads(), 10**12)
    precision = batch.precision(inventory)
    forecast, costs = batch.forecasts(inventory)[0], batch.costs(precision)
    (worker,) = forecast.placement.workers
    if short < 1.0 and worker.capacity is not None:
        worker = replace(worker, capacity=int(short * worker.peak_bytes))
    spec = WorkerSpec(worker, checkpoint, precision, batch.mp4_settings, batch.storage(precision))
    started = time.perf_counter()
    executor = LocalExecutor([spec])
    start_s = time.perf_counter() - started
    loop = BatchLoop(Scheduler(forecast.placement, costs), executor)
    started = time.perf_counter()
    results = list(loop.render(requests))
    seconds = time.perf_counter() - started
    reports = [completion.report for completion in loop.completions]
    fallbacks = sorted({report.fallback for report in reports if report.fallback})
    moving = sum(report.load_seconds for report in reports)
    used = memory(scale)
    done = all(result.status == "done" for result in results)
    planned = {"planned_gb": round(worker.peak_bytes / GB, 3)} if worker.peak_bytes else {}
    quiet = not fallbacks and not used.get("retries")
    return {
        "residency": worker.residency,
        "streamed": [str(stage) for stage in worker.streamed],
        "tiles": [worker.tiling.tile_size, worker.tiling.tile_frames],
        "clip_s": round(seconds / len(requests), 3),
        "predicted_s": round(forecast.seconds / len(requests), 3),
        "start_s": round(start_s, 2),
        "moving_share": round(moving / seconds, 3),
        "fallbacks": fallbacks,
        "frames": [result.video.frames_sha256[:12] if result.video else None for result in results],
        "errors": sorted({str(result.error)[:160] for result in results if result.error}),
        "ok": done and (quiet or short < 1.0),
        "aim": "every clip ends" + ("" if short < 1.0 else "; no fallback, no retry"),
        **planned,
        **used,
    }
