"""Compares ours with what others would write: replayed stages on 3 to 8 devices, the demo, and offloading on a GPU.

    python benchmarks/rivals.py [--quick] [--seconds 0.9] [--only replayed|demo|offload]

All sides take turns in one run of this script.
Replayed (`replay_worker.py`: workers sleep for the stage times of GPUs; time and payloads shrink by the same factor):
  data parallel  one process per device, each with all stages of every n-th clip, in the order of the file. If the
                 models do not fit on a device together, each clip reloads them over a 25 GB/s link
  ray data       `map_batches` with one actor pool per stage, as in Ray's guide to batch inference: batches of one, one
                 block per row, order not preserved, and pool sizes that balance the stages. Its encoding and decoding
                 actors share devices as if this cost nothing, which favours Ray Data
  ours           the planner's layout and order, as with `placement.layout: auto`
It prints the seconds from the start of the first stage to the end of the last, and ours divided by theirs. Time is
compressed as in `schedule.py`. So Ray's time per call weighs more than on GPUs, for ours and for Ray Data, but not for
data parallel.
Demo (`cpu_batch.py`): the packaged model on this machine's cores, against a plain diffusers loop and independent
processes.
Offload (`gpu.py`): diffusers' `enable_model_cpu_offload` against ours in waves, if there is a GPU.
Ray Data needs pyarrow and pandas: pip install -e '.[benchmarks]' -c constraints.txt
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from cpu_batch import compare
from on_actors import render, start_actors
from replay import draw_works
from replay_worker import PAYLOAD_BYTES, REFERENCE, ReplaySpec, ReplayWorker, replay_request, seconds_on
from schedule import DEMAND, GB, RTX_4090, SLOWER, best_split, compressed, known_costs
from text_to_video import RECIPE, STAGES, V, all_stages

from ltx_dist.cluster import ray_cluster
from ltx_dist.cluster.ray_executor import RayExecutor
from ltx_dist.estimates.costs import Work
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.timeline import makespan
from ltx_dist.pipeline.worker import Placement
from ltx_dist.placement.fitting import BatchDemand, Models
from ltx_dist.placement.inventory import DeviceInfo, Inventory
from ltx_dist.placement.placement import Wishes
from ltx_dist.planning.ordering import best_order
from ltx_dist.planning.planner import forecasts

CASES = [("40-step", 3, 48), ("distilled", 4, 64), ("mixed", 8, 128), ("13B distilled", 4, 64)]
"""Stage times, devices (RTX 4090, 24 GB), clips."""

DEMAND_13B = BatchDemand(
    Models(RECIPE, {"text_encoder": int(9.525e9), "transformer": int(13.04e9), "vae": int(1.106e9)})
)
"""13B with its transformer in float8: all models together do not fit in 24 GB."""

LINK = 25e9
"""Bytes per second from the host's memory to a device."""


class DataParallel:
    """A process that renders its share, one clip after another."""

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
    """A stage as a callable for Ray Data: takes a batch of one row, and returns it with the stage's payload."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._position = STAGES.index(self._stage)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        started = time.time()
        seconds = seconds_on(REFERENCE, SLOWER, tuple(batch["seconds"][0]))[self._position]
        payload = np.zeros((1, int(PAYLOAD_BYTES[self._stage] / batch["faster"][0])), np.uint8)
        time.sleep(max(0.0, seconds - (time.time() - started)))
        first = batch.get("started", np.array([started]))
        same = {name: batch[name] for name in ("seconds", "faster")}
        return {**same, "payload": payload, "started": first, "ended": np.array([time.time()])}


def planned(devices: int, works: dict[str, Work], demand: BatchDemand) -> Placement:
    """The planner's placement, with workers that ask Ray for no GPU."""
    inventory = Inventory((DeviceInfo(RTX_4090, 24 * GB),) * devices, 16)
    costs = known_costs(works, demand)
    best = forecasts(Wishes(), inventory, demand, all_stages(works), costs)[0].placement
    return replace(best, workers=tuple(replace(worker, num_gpus=0.0) for worker in best.workers))


def swaps(demand: BatchDemand) -> Work:
    encode, denoise, decode = (demand.weights([stage]) / LINK for stage in STAGES)
    return encode, denoise, decode


def run_ours(placement: Placement, works: dict[str, Work], demand: BatchDemand, faster: float) -> float:
    specs = [ReplaySpec(worker, SLOWER, swaps(demand)) for worker in placement.workers]
    executor = start_actors(specs, ReplayWorker)
    few = {name: (work[0] / 10, work[1] / 10, work[2] / 10) for name, work in list(works.items())[:8]}
    seconds_of(executor, placement, few, demand, 10 * faster)  # the first calls open connections
    seconds = seconds_of(executor, placement, works, demand, faster)
    executor.shutdown()
    return seconds


def seconds_of(
    executor: RayExecutor, placement: Placement, works: dict[str, Work], demand: BatchDemand, faster: float
) -> float:
    costs = known_costs(works, demand, faster)
    order = best_order(placement, all_stages(works), costs).request_ids
    return makespan(render(executor, placement, costs, [replay_request(name, works[name], faster) for name in order]))


def run_data_parallel(devices: int, works: dict[str, Work], faster: float, reload_seconds: float) -> float:
    actors: list[Any] = [ray.remote(num_cpus=0)(DataParallel).remote(reload_seconds) for _ in range(devices)]
    ray.get([actor.render.remote([]) for actor in actors])
    requests = [replay_request(name, work, faster) for name, work in works.items()]
    spans = ray.get([actor.render.remote(requests[i::devices]) for i, actor in enumerate(actors)])
    for actor in actors:
        ray.kill(actor)
    return max(end for _, end in spans) - min(start for start, _ in spans)


def run_ray_data(encoders: int, denoisers: int, works: dict[str, Work], faster: float) -> float:
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context.execution_options.preserve_order = False
    items = [{"seconds": list(work), "faster": faster} for work in works.values()]
    rows = ray.data.from_items(items, override_num_blocks=len(items))
    for stage, pool in zip(STAGES, (encoders, denoisers, encoders), strict=True):
        strategy = ray.data.ActorPoolStrategy(size=pool)
        rows = rows.map_batches(
            StageOfRows, fn_constructor_args=(str(stage),), batch_size=1, compute=strategy, num_cpus=0.01
        )
    spans = [(row["started"], row["ended"]) for row in rows.select_columns(["started", "ended"]).iter_rows()]
    assert len(spans) == len(works)
    return float(max(end for _, end in spans) - min(start for start, _ in spans))


def replayed(seeds: range, cases: Sequence[tuple[str, int, int]], seconds: float) -> None:
    """Run data parallel, Ray Data and ours on actors that sleep. Prints each run, and the mean ratios of each case."""
    if missing := [name for name in ("pyarrow", "pandas") if importlib.util.find_spec(name) is None]:
        sys.exit(f"Ray Data needs {' and '.join(missing)}: pip install -e '.[benchmarks]' -c constraints.txt")
    ray_cluster.connect(None)
    for case, devices, clips in cases:
        demand = DEMAND_13B if case.startswith("13B") else DEMAND
        ratios: dict[str, list[float]] = {"data parallel": [], "ray data": []}
        for seed in seeds:
            drawn = draw_works(clips, random.Random(seed), case)
            placement, split = planned(devices, drawn, demand), best_split(devices, drawn)
            works, faster = compressed(placement, drawn, seconds * clips / devices, demand)
            encoders = sum(V in worker.stages for worker in split.workers)
            reload_seconds = 0.0 if demand is DEMAND else sum(swaps(demand)) / faster
            ours = run_ours(placement, works, demand, faster)
            data_parallel = run_data_parallel(devices, works, faster, reload_seconds)
            ray_data = run_ray_data(encoders, devices - encoders, works, faster)
            ratios["data parallel"].append(ours / data_parallel)
            ratios["ray data"].append(ours / ray_data)
            print(
                f"  seed {seed}, time / {faster:.0f}: ours ({placement.layout}, {placement.workers[0].residency}) "
                f"{ours:.2f} s  data parallel {data_parallel:.2f}  ray data {ray_data:.2f}",
                flush=True,
            )
        means = {name: statistics.mean(values) for name, values in ratios.items()}
        print(
            f"{case:<14} {devices} devices {clips:>4} clips: ours / data parallel {means['data parallel']:.3f} "
            f"(aim <= 1.00)   ours / ray data {means['ray data']:.3f} (aim <= 0.90)",
            flush=True,
        )
    ray_cluster.disconnect()


def offload() -> None:
    """Compare with diffusers' model offload on a 24 GB card, or on 24 GB of a larger one."""
    if not torch.cuda.is_available():
        print("model offload: not run, because there is no GPU here; with one, this runs `gpu.py --only offload`")
        return
    subprocess.run([sys.executable, str(Path(__file__).with_name("gpu.py")), "--only", "offload"], check=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="one seed, two cases, one round")
    parser.add_argument("--seconds", type=float, default=0.9, help="about how long a device takes for a clip")
    parser.add_argument("--case", choices=[case for case, *_ in CASES], help="only this one of the replayed cases")
    parser.add_argument("--only", choices=["replayed", "demo", "offload"], help="one part instead of all")
    arguments = parser.parse_args()
    started = time.monotonic()
    if arguments.only in (None, "replayed"):
        cases = CASES[1:3] if arguments.quick else CASES
        cases = [one for one in CASES if one[0] == arguments.case] if arguments.case else cases
        replayed(range(1 if arguments.quick else 2), cases, arguments.seconds)
    if arguments.only in (None, "demo"):
        compare(24, 1 if arguments.quick else 3)
    if arguments.only in (None, "offload"):
        offload()
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
