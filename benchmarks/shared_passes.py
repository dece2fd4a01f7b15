"""Measures seconds per clip when clips share a forward pass (`denoise.batch_size`), against a clip by itself.

    python benchmarks/shared_passes.py [--rounds 3]

The demo model runs on one thread of a CPU. Only text encoding and denoising are measured, because decoding is never
shared. Batch sizes take turns. The seconds are the thread's CPU time, so that other work on the machine matters as
little as possible. For each size of clip it prints the seconds per clip at each batch size, the speed-up over a clip by
itself, and how far the latents are from those of the clip by itself. `benchmarks/gpu.py` measures the seconds on a GPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from text_to_video import D, E

from ltx_dist.checkpoints.checkpoint import open_checkpoint
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import Mp4Settings
from ltx_dist.pipeline.worker import Worker
from ltx_dist.worker.spec import WorkerSpec
from ltx_dist.worker.stage_worker import StageWorker

SIZES = ((64, 64, 9), (128, 128, 25), (256, 256, 25))
BATCH_SIZES = (1, 2, 4, 8)
SHARED = (E, D)


Clock = Callable[[], float]


def compare(
    worker: StageWorker,
    requests: Sequence[RenderRequest],
    rounds: int,
    sizes: Sequence[int],
    clock: Clock = time.perf_counter,
) -> None:
    """Print one line per stage, and one for the latents. The first round only warms up."""
    seconds: dict[tuple[str, int], list[float]] = {(stage, size): [] for stage in SHARED for size in sizes}
    latents: dict[int, torch.Tensor] = {}
    for number in range(rounds + 1):
        for size in sizes:
            by_stage, latents[size] = in_passes(worker, requests, size, clock)
            for stage, value in by_stage.items() if number else ():
                seconds[stage, size].append(value / len(requests))
    for stage in SHARED:
        medians = {size: statistics.median(seconds[stage, size]) for size in sizes}
        parts = [f"{size}: {median:.4f} s ({medians[sizes[0]] / median:.2f}x)" for size, median in medians.items()]
        print(f"  {stage}, seconds per clip by clips per pass: {'  '.join(parts)}", flush=True)
    apart = max((found - latents[sizes[0]]).abs().max().item() for found in latents.values())
    print(f"  latents of clips that shared a pass differ by at most {apart:.1e} from those of clips alone")


def in_passes(
    worker: StageWorker, requests: Sequence[RenderRequest], size: int, clock: Clock
) -> tuple[dict[str, float], torch.Tensor]:
    """Seconds of each stage for all requests, `size` per pass, and their latents, concatenated."""
    outputs: list[Any] = []  # the first stage reads none
    by_stage: dict[str, float] = {}
    for stage in SHARED:
        made, by_stage[stage] = [], 0.0
        for start in range(0, len(requests), size):
            some = slice(start, start + size)
            started = clock()
            *found, report = worker.run(stage, requests[some], *outputs[some])
            by_stage[stage] += clock() - started
            assert report.error is None, report.error
            made += found
        outputs = made
    return by_stage, torch.cat([output.latents for output in outputs])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    placed = Worker("cpu:0", SHARED, "cpu", threads=1, batch_size=max(BATCH_SIZES))
    worker = StageWorker(WorkerSpec(placed, open_checkpoint("demo"), "float32", Mp4Settings()))
    print(f"demo model, float32, one thread, torch {torch.__version__}, 8 steps, guidance 3")
    for height, width, num_frames in SIZES:
        print(f"{width}x{height}x{num_frames}")
        requests = [
            RenderRequest(
                f"{i}", f"prompt number {i}", "", height, width, num_frames, 25.0, 8, 3.0, 0.0, i, 0.05, 0.025, 128
            )
            for i in range(max(BATCH_SIZES))
        ]
        compare(worker, requests, arguments.rounds, BATCH_SIZES, time.thread_time)


if __name__ == "__main__":
    main()
