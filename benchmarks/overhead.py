"""Measures our overhead over a bare diffusers loop on one device, with both in the same process.

    python benchmarks/overhead.py [--clips 16] [--rounds 3]

Each round renders the clips twice: in a plain loop over the pipeline that writes mp4s, and by `LocalExecutor` with
scheduling, hashing, spooling, publishing and sidecars. Which of the two is first alternates. It prints the wall-clock
seconds of both and their ratio; the aim is at most 1.05. On both sides, weights are loaded before the clock starts. At
the end, `ray_share.py` measures what Ray costs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from bare_diffusers import load_pipeline, render_clip
from ray_share import measure
from text_to_video import write_demo_prompts

from ltx_dist.engine.loop import BatchLoop
from ltx_dist.inputs.config_file import load_config
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.placement.local_devices import local_inventory
from ltx_dist.run.batch import Batch, open_batch
from ltx_dist.run.placed_batch import PlacedBatch, place_batch
from ltx_dist.run.resumption import Resumption
from ltx_dist.scheduling.scheduler import Scheduler
from ltx_dist.store.artifacts import ArtifactStore
from ltx_dist.store.publisher import Publisher
from ltx_dist.worker.local_executor import LocalExecutor
from ltx_dist.worker.spec import WorkerSpec


def make_batch(folder: Path, num_clips: int, threads: int) -> Batch:
    prompts = write_demo_prompts(folder, num_clips)
    return open_batch(str(prompts), load_config(None, [f"placement.threads={threads}", "placement.device=cpu"]))


def ours(placed: PlacedBatch, executor: LocalExecutor, folder: Path) -> float:
    started = time.perf_counter()
    publisher = Publisher(folder, {"name": "demo", "sha256": placed.digest})
    internal = folder / ".ltx-dist"
    spool = ArtifactStore(internal / "spool", internal / "tmp", limit_bytes=10**9)
    resumption = Resumption(placed.placement.recipe, placed.keys.of, spool)
    renderer = BatchLoop(Scheduler(placed.placement), executor, resumption, placed.keys.of)
    for result in renderer.render(placed.batch.requests):
        assert result.status == "done", result.error
        publisher.publish(result, placed.keys.render_key(result.request))
    resumption.close()
    return time.perf_counter() - started


def replace_requests(placed: PlacedBatch, requests: tuple[RenderRequest, ...]) -> PlacedBatch:
    return replace(placed, batch=replace(placed.batch, requests=requests))


def bare(batch: Batch, pipeline: Any, folder: Path) -> float:
    started = time.perf_counter()
    for request in batch.requests:
        (folder / f"{request.request_id}.mp4").write_bytes(render_clip(pipeline, request, batch.mp4_settings))
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    ratios = []
    with tempfile.TemporaryDirectory() as temporary:
        batch = make_batch(Path(temporary), arguments.clips, arguments.threads)
        placed = place_batch(batch, local_inventory())
        (worker,) = placed.placement.workers
        spec = WorkerSpec(worker, batch.checkpoint, placed.precision, batch.mp4_settings)
        executor = LocalExecutor([spec])
        pipeline = load_pipeline(str(batch.checkpoint.path))
        render_clip(pipeline, batch.requests[0], batch.mp4_settings)  # the first calls set up kernels
        ours(replace_requests(placed, batch.requests[:1]), executor, Path(temporary) / "warm")
        for round_ in range(arguments.rounds):
            folders = [Path(temporary) / f"{name}-{round_}" for name in ("bare", "ours")]
            folders[0].mkdir()
            if round_ % 2:
                our_seconds = ours(placed, executor, folders[1])
                bare_seconds = bare(batch, pipeline, folders[0])
            else:
                bare_seconds = bare(batch, pipeline, folders[0])
                our_seconds = ours(placed, executor, folders[1])
            ratios.append(our_seconds / bare_seconds)
            print(f"round {round_ + 1}: bare loop {bare_seconds:.2f} s  ours {our_seconds:.2f} s  {ratios[-1]:.3f}")
    print(f"ours / bare loop, {arguments.clips} clips, median of {arguments.rounds}: {statistics.median(ratios):.3f}")
    measure([0.6, 20.0], num_clips=12)


if __name__ == "__main__":
    main()
