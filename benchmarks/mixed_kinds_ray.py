"""Measures how close batches that mix kinds of clips (see `mixed_kinds.py`) come to the lower bound on Ray actors.

    python benchmarks/mixed_kinds_ray.py [--seconds 90] [--clips 24] [--devices 3] [--layout pinned]

A stage takes its predicted seconds times a factor that the cost model has to learn (SLOWER). Real actors sleep for as
long, as in `schedule.py`, and hand on as many bytes as the stage would. Time is compressed so that the batch takes
about --seconds. Payloads shrink by the same factor, which is printed.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import PIL.Image
from mixed_kinds import UPSCALER, VERSION, draw_rows, opened
from on_actors import render, start_actors
from replay_worker import encoded, slept
from virtual_clock import PRECISION, SLOWER

from ltx_dist.cluster import ray_cluster
from ltx_dist.estimates.costs import PredictedCosts, seconds
from ltx_dist.models.family import Family
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.timeline import makespan
from ltx_dist.pipeline.work import StageReport, WorkerState
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.placement.inventory import Inventory
from ltx_dist.placement.local_devices import with_described
from ltx_dist.planning.losses import losses, measured_bound
from ltx_dist.run.batch import Batch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import sparse  # noqa: E402

SEED = 0

BYTES = {
    "encode_text": 4_000_000, "encode_image": 400_000, "denoise": 9_000_000, "refine": 9_000_000,
    "encode_video": 5_000_000,
}  # fmt: skip
"""Bytes that each stage hands on for a clip of 1216x704x121. Frames stay on the worker that decoded them."""


@dataclass(frozen=True)
class TimedSpec:
    """seconds: what this worker replays, by request and stage. faster: the speed of the replay, relative to GPUs."""

    worker: Worker
    family: Family
    seconds: Mapping[tuple[str, str], float]
    faster: float


class TimedWorker:
    """Replaces `StageWorker` in an actor: sleeps as long as a stage takes, and returns as many bytes."""

    def __init__(self, spec: TimedSpec) -> None:
        self._spec = spec

    def run(
        self, stage: str, requests: Sequence[RenderRequest], *payloads: Any, keys: Any = ()
    ) -> tuple[Any, StageReport]:
        (request,) = requests
        num_bytes = int(BYTES.get(stage, 0) / self._spec.faster)
        if stage == "encode_video":
            return encoded(request, num_bytes)
        content, took = slept(self._spec.seconds[request.request_id, stage], num_bytes)
        return None if stage == "decode" else content, StageReport(took)

    def state(self) -> WorkerState:
        return WorkerState(self._spec.worker.worker_id)


def compressed(costs: PredictedCosts, faster: float) -> PredictedCosts:
    works = {name: tuple(work / faster for work in of) for name, of in costs.work_of.items()}
    weights = {name: int(size / faster) for name, size in costs.weight_bytes.items()}
    return replace(costs, work_of=works, weight_bytes=weights)


def run(batch: Batch, placement: Placement, order: Sequence[str], faster: float) -> tuple[float, float, float]:
    """Seconds of the makespan, of its bound, and of the time that a worker on average waited for what it was given."""
    costs, table = (compressed(batch.costs(PRECISION), faster) for _ in range(2))
    workers = tuple(replace(worker, num_gpus=0.0) for worker in placement.workers)
    placement = replace(placement, workers=workers)
    specs = [
        TimedSpec(worker, batch.family, {
            (name, stage): seconds(table, name, stage, worker) * SLOWER.get(stage, 1.0)
            for name in order for stage in worker.stages
        }, faster)
        for worker in workers
    ]  # fmt: skip
    requests = {request.request_id: request for request in batch.requests}
    executor = start_actors(specs, TimedWorker)
    try:
        completions = render(executor, placement, costs, [requests[name] for name in order])
    finally:
        executor.shutdown()
    recipe = placement.recipe
    bound = measured_bound(completions, workers, recipe, costs)
    return makespan(completions), bound.seconds, losses(completions, workers, recipe).handing_over


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--devices", type=int, default=3)
    parser.add_argument("--layout", choices=("pinned", "replicated"), default="pinned")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sparse.save_sparse_checkpoint(folder / VERSION, VERSION)
        sparse.save_sparse_upscaler(folder / UPSCALER)
        PIL.Image.new("RGB", (1216, 704)).save(folder / "a.png")
        batch = opened(folder, draw_rows(args.clips, random.Random(SEED)), args.layout, args.devices)
        best = batch.forecasts(with_described(Inventory((), 16, 512_000_000_000), "cuda", args.devices, 80.0))[0]
        faster = best.order.seconds * SLOWER["denoise"] / args.seconds
        ray_cluster.connect(None)
        try:
            took, bound, handing_over = run(batch, best.placement, best.order.request_ids, faster)
        finally:
            ray_cluster.disconnect()
    print(
        f"{args.layout} {args.devices} devices {args.clips} clips: {took:.1f} s, makespan / bound {took / bound:.3f}; "
        f"Ray {handing_over / took:.1%}; time compressed {faster:.0f} times; load {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    main()
