"""Ours against what others would write, replayed on actors that sleep as long as the stages take on GPUs.

    python benchmarks/rivals.py [--quick] [--seconds 6]

In turns, in one run, on the same actors' code (`replay_worker.py`), with payloads of real size, on 3 to 8 devices:
  data parallel  a process a device, each all stages of every n-th clip, in the order of the file. Where the models do
                 not fit a device together, each clip reloads them over a 25 GB/s link
  ray data       `map_batches` with an actor pool a stage, as its guide to batch inference has it: batches of one, a
                 block a row, order not preserved, pools of the sizes that balance the stages. Its encoding and
                 decoding actors are on the same devices as if sharing cost nothing, which favours it
  ours           the planner's layout and order: all stages on each device where they fit, else the best split
Printed are seconds from the first stage's start to the last one's end, and ours over theirs. `cpu_batch.py` does the
same with the packaged model's real stages on this machine's cores, against a plain loop and independent processes.
Needs pyarrow and pandas for Ray Data.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from typing import Any

import numpy as np
import ray
from replay import draw_works
from replay_worker import PAYLOAD_BYTES, REFERENCE, ReplaySpec, ReplayWorker, replay_request, seconds_on
from schedule import RTX_4090, SLOWER, best_split, known_costs, placement_of, scaled

from ltx_dist.execution import ray_cluster
from ltx_dist.execution.ray_executor import RayExecutor
from ltx_dist.execution.renderer import Renderer
from ltx_dist.scheduling.costs import Work
from ltx_dist.scheduling.inventory import DeviceInfo
from ltx_dist.scheduling.ordering import best_order, rest_in_order
from ltx_dist.scheduling.placement import Placement
from ltx_dist.scheduling.scheduler import Scheduler
from ltx_dist.scheduling.timeline import makespan
from ltx_dist.types import STAGES, RenderRequest, Stage

CASES = [("40-step", 3, 48, True), ("distilled", 4, 64, True), ("mixed", 8, 128, True), ("13B distilled", 4, 64, False)]
"""Stage times, devices, clips, and whether all models fit a device together."""

RELOAD_SECONDS = 0.95
"""Of 23.7 GB, T5 and 13B in fp8 with the VAE, at 25 GB/s."""


class DataParallel:
    """A process that renders its share, one clip after the other."""

    def __init__(self, reload_seconds: float) -> None:
        self._worker = ReplayWorker(ReplaySpec(REFERENCE, SLOWER))
        self._reload_seconds = reload_seconds

    def render(self, requests: list[RenderRequest]) -> tuple[float, float]:
        started = time.time()
        for request in requests:
            time.sleep(self._reload_seconds)
            for stage in STAGES:
                self._worker.run(stage, [request], None)
        return started, time.time()


class StageOfRows:
    """A stage as a callable of Ray Data: a batch of one row in, the same with its payload out."""

    def __init__(self, stage: str) -> None:
        self._stage = Stage(stage)
        self._position = STAGES.index(self._stage)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        started = time.time()
        seconds = seconds_on(REFERENCE, SLOWER, tuple(batch["seconds"][0]))[self._position]
        payload = np.zeros((1, PAYLOAD_BYTES[self._stage]), np.uint8)
        time.sleep(max(0.0, seconds - (time.time() - started)))
        first = batch.get("started", np.array([started]))
        return {"seconds": batch["seconds"], "payload": payload, "started": first, "ended": np.array([time.time()])}


def run_ours(executor: RayExecutor, placement: Placement, works: dict[str, Work]) -> float:
    costs = known_costs(works)
    order = best_order(placement, list(works), costs).request_ids
    renderer = Renderer(
        Scheduler(placement, costs), executor, reorder=lambda rest: rest_in_order(rest, placement.workers, costs)
    )
    for result in renderer.render([replay_request(name, works[name]) for name in order]):
        assert result.status == "done", result.error
    return makespan(renderer.completions)


def run_data_parallel(devices: int, works: dict[str, Work], reload_seconds: float) -> float:
    actors = [ray.remote(num_cpus=0)(DataParallel).remote(reload_seconds) for _ in range(devices)]
    ray.get([actor.render.remote([]) for actor in actors])
    requests = [replay_request(name, work) for name, work in works.items()]
    spans = ray.get([actor.render.remote(requests[i::devices]) for i, actor in enumerate(actors)])
    for actor in actors:
        ray.kill(actor)
    return max(end for _, end in spans) - min(start for start, _ in spans)


def run_ray_data(encoders: int, denoisers: int, works: dict[str, Work]) -> float:
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    rows = ray.data.from_items([{"seconds": list(work)} for work in works.values()], override_num_blocks=len(works))
    for stage, pool in zip(STAGES, (encoders, denoisers, encoders), strict=True):
        strategy = ray.data.ActorPoolStrategy(size=pool)
        rows = rows.map_batches(
            StageOfRows, fn_constructor_args=(str(stage),), batch_size=1, compute=strategy, num_cpus=0.01
        )
    spans = [(row["started"], row["ended"]) for row in rows.select_columns(["started", "ended"]).iter_rows()]
    assert len(spans) == len(works)
    return float(max(end for _, end in spans) - min(start for start, _ in spans))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="one seed, two cases")
    parser.add_argument("--seconds", type=float, default=6.0, help="about how long ours is made to take")
    arguments = parser.parse_args()
    ray_cluster.connect(None)
    same = placement_of("replicated", [DeviceInfo(RTX_4090, 80 * 10**9)] * 8, "same")
    specs = [ReplaySpec(worker, SLOWER) for worker in same.workers]
    executor = RayExecutor(specs, worker_class=ReplayWorker)  # pyright: ignore[reportArgumentType]
    run_ours(executor, same, scaled(same, draw_works(32, random.Random(9), "distilled"), 2.0))
    for case, devices, clips, fits in CASES[1:3] if arguments.quick else CASES:
        ratios: dict[str, list[float]] = {"data parallel": [], "ray data": []}
        for seed in range(1 if arguments.quick else 2):
            works = draw_works(clips, random.Random(seed), case)
            split = best_split(devices, works)
            universal = placement_of("replicated", [DeviceInfo(RTX_4090, 80 * 10**9)] * devices, "same")
            placement = universal if fits else split
            full_seconds = sum(map(sum, works.values()))
            works = scaled(placement, works, arguments.seconds)
            factor = sum(map(sum, works.values())) / full_seconds
            encoders = sum(Stage.DECODE in worker.stages for worker in split.workers)
            ours = run_ours(executor, placement, works)
            data_parallel = run_data_parallel(devices, works, 0.0 if fits else RELOAD_SECONDS * factor)
            ray_data = run_ray_data(encoders, devices - encoders, works)
            ratios["data parallel"].append(ours / data_parallel)
            ratios["ray data"].append(ours / ray_data)
            print(
                f"  seed {seed}: ours {ours:.2f} s  data parallel {data_parallel:.2f}  ray data {ray_data:.2f}",
                flush=True,
            )
        means = {name: statistics.mean(values) for name, values in ratios.items()}
        print(
            f"{case:<14} {devices} devices {clips:>4} clips, time x {factor:.4f}: ours / data parallel "
            f"{means['data parallel']:.3f}   ours / ray data {means['ray data']:.3f}",
            flush=True,
        )
    executor.shutdown()
    ray_cluster.disconnect()


if __name__ == "__main__":
    main()
