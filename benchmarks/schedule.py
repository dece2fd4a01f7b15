"""Measures how close batches on 2 to 8 devices come to the lower bound, on Ray actors that sleep for the stage times.

    python benchmarks/schedule.py [--quick] [--seconds 4.5] [--virtual] [--devices 8] [--case distilled]

The stage times are those of `replay.py`: 2B at 40 steps, distilled, and 13B distilled, with random sizes of 704x480 to
1216x704 and random numbers of passes, from 5 seeds. The layouts are `pinned` with the best split, `replicated` (all
stages on each device), and `elastic` on a mixed cluster of one 80 GB, two 24 GB and one 8 GB card. Devices differ from
the table of the cost model by factors that the model is not told and has to learn (denoise 1.4, decode 0.7).
`predicted` is the makespan that the model predicts after 8 clips, divided by the measured one.

Time is compressed so that a device takes about --seconds for each of its clips. Payloads shrink by the same factor,
which is printed, so that copying has the same share of the time as on GPUs. The time that a call costs Ray does not
shrink. Its share (`Ray`: workers waited for what they had been given) is therefore larger here by that factor, and
every figure is an upper bound. The share that the same seconds would have at the speed of GPUs is printed beside it.
Figures for different --seconds cannot be compared: the 25 ms or so that a clip loses on two cores are a sixth of
0.16 s, but a two-hundredth of 4.5 s.

The seeds of a case run side by side, each with its own driver and actors. Actors that sleep leave the cores free, so
time can be compressed less. But no more than MAX_ACTIVE actors work at a time, because at the start of a batch all of
them report at once: when five batches of 8 devices start together on two cores, this takes three times as long as for
one batch alone. The whole run takes about 28 minutes.

--virtual runs the same batches through the same scheduler on a virtual clock, which shows the effect of order and
layout alone.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import ray
from on_actors import render, start_actors
from replay import draw_works
from replay_worker import ReplaySpec, ReplayWorker, operations, replay_request, seconds_on
from text_to_video import RECIPE, STAGES, M, V, all_stages

from ltx_dist.cluster import ray_cluster
from ltx_dist.estimates.costs import PredictedCosts, Work
from ltx_dist.models.ltx_video.estimates import STAGE_RATES
from ltx_dist.pipeline.timeline import makespan
from ltx_dist.pipeline.work import Assignment, Completion
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.placement.fitting import BatchDemand, Models
from ltx_dist.placement.inventory import DeviceInfo, Inventory
from ltx_dist.placement.placement import LayoutWish, Wishes, place
from ltx_dist.placement.waves import DEFAULT_QUEUE
from ltx_dist.planning.losses import losses, measured_bound
from ltx_dist.planning.order_search import better_orders
from ltx_dist.planning.ordering import best_order
from ltx_dist.planning.simulator import predict, simulate

GB = 10**9
DEMAND = BatchDemand(Models(RECIPE, {"text_encoder": int(9.525e9), "transformer": int(3.847e9), "vae": int(1.106e9)}))
SLOWER = (1.0, 1.4, 0.7)
"""Factors on the table's seconds of encoding, denoising and decoding, which the cost model has to learn."""

LEARNT_AFTER = 8
MAX_ACTIVE = 24
"""The most actors that work at a time, over all batches that run side by side."""

RTX_4090, H100, RTX_3060 = "NVIDIA GeForce RTX 4090", "NVIDIA H100 80GB HBM3", "NVIDIA GeForce RTX 3060"
MIXED = [DeviceInfo(H100, 80 * GB), DeviceInfo(RTX_4090, 24 * GB), DeviceInfo(RTX_4090, 24 * GB),
         DeviceInfo(RTX_3060, 8 * GB)]  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """Figures of one batch. ray: the share of the makespan in which a worker waited for what it was already given.

    predicted: the makespan predicted after the first clips, divided by the measured one. faster: the speed of the
    replay, relative to GPUs.
    """

    ratio: float
    seconds: float
    bound: float
    ray: float
    predicted: float
    order: str
    faster: float


def placement_of(layout: LayoutWish, devices: Sequence[DeviceInfo], prefix: str) -> Placement:
    """The layout on these devices, with workers named as their actors are."""
    found = place(Wishes(layout=layout), Inventory(tuple(devices), 16), DEMAND)
    workers = tuple(replace(w, worker_id=f"{prefix}{i}", num_gpus=0.0) for i, w in enumerate(found.workers))
    return replace(found, workers=workers)


def split(num_devices: int, encoders: int) -> Placement:
    """A placement in which `encoders` devices encode and decode (EV) and the others denoise (D)."""
    whole = placement_of("replicated", [DeviceInfo(RTX_4090, 80 * GB)] * num_devices, "same")
    encode, denoise, decode = STAGES
    workers = tuple(
        replace(w, stages=(encode, decode) if i < encoders else (denoise,)) for i, w in enumerate(whole.workers)
    )
    denoisers = num_devices - encoders
    bounds = {
        denoise: DEFAULT_QUEUE * denoisers + encoders - 1,
        decode: DEFAULT_QUEUE * encoders + denoisers - 1,
    }
    return Placement(RECIPE, "pinned", workers, bounds)


def best_split(num_devices: int, works: dict[str, Work]) -> Placement:
    """The split with the shortest predicted makespan, over all numbers of devices that encode and decode."""
    costs = known_costs(works)
    return min(
        (split(num_devices, encoders) for encoders in range(1, num_devices)),
        key=lambda placement: best_order(placement, all_stages(works), costs).seconds,
    )


def known_costs(works: dict[str, Work], demand: BatchDemand = DEMAND, faster: float = 1.0) -> PredictedCosts:
    """What the cost model predicts for the works. faster: their speed, relative to GPUs; swaps of weights share it."""
    weights = {name: int(size / faster) for name, size in demand.models.weights.items()}
    works_of = {name: operations(work) for name, work in works.items()}
    return PredictedCosts(RECIPE, works_of, STAGE_RATES, weights)


def compressed(
    placement: Placement, works: dict[str, Work], seconds: float, demand: BatchDemand = DEMAND
) -> tuple[dict[str, Work], float]:
    """The works, compressed so that the batch takes about this many seconds, and their speed relative to GPUs."""
    faster = best_order(placement, all_stages(works), known_costs(works, demand)).seconds * SLOWER[1] / seconds
    return {name: (work[0] / faster, work[1] / faster, work[2] / faster) for name, work in works.items()}, faster


@dataclass(frozen=True)
class Prepared:
    """A batch in compressed time, and the best order by what is known before it. faster: its speed relative to GPUs."""

    placement: Placement
    works: dict[str, Work]
    faster: float
    order: str
    request_ids: tuple[str, ...]


def prepared(placement: Placement, works: dict[str, Work], seconds: float) -> Prepared:
    works, faster = compressed(placement, works, seconds)
    order = best_order(placement, all_stages(works), known_costs(works))
    return Prepared(placement, works, faster, order.name, order.request_ids)


Run = tuple[list[Completion], PredictedCosts]
"""Completions with their times, and the costs as learned during the run."""


class Driver:
    """Runs batches on actors of its own."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._executor = start_actors([ReplaySpec(worker, SLOWER) for worker in workers], ReplayWorker)

    def run(self, batch: Prepared) -> Run:
        costs = known_costs(batch.works)
        requests = [replay_request(name, batch.works[name], batch.faster) for name in batch.request_ids]
        return render(self._executor, batch.placement, costs, requests), costs


class Drivers:
    """Drivers for the batches that run at the same time, each in a process of its own."""

    def __init__(self, count: int, workers: Sequence[Worker]) -> None:
        self._drivers = [ray.remote(num_cpus=0)(Driver).remote(workers) for _ in range(count)]

    def run(self, batches: Sequence[Prepared]) -> list[Run]:
        at_a_time = max(1, MAX_ACTIVE // len(batches[0].placement.workers))
        runs: list[Run] = []
        for first in range(0, len(batches), at_a_time):
            some = batches[first : first + at_a_time]
            runs += ray.get([driver.run.remote(batch) for driver, batch in zip(self._drivers, some, strict=False)])
        return runs


class VirtualClock:
    def run(self, batches: Sequence[Prepared]) -> list[Run]:
        return [on_virtual_clock(batch, known_costs(batch.works)) for batch in batches]


def on_virtual_clock(batch: Prepared, costs: PredictedCosts) -> Run:
    workers = {worker.worker_id: worker for worker in batch.placement.workers}

    def duration(assignment: Assignment) -> float:
        (name,) = assignment.request_ids
        if assignment.stage == M:
            return 0.0
        seconds = seconds_on(workers[assignment.worker_id], SLOWER, batch.works[name])
        return seconds[STAGES.index(assignment.stage)]

    completions = simulate(
        batch.placement, all_stages(batch.request_ids), duration, costs,
        reorder=lambda rest: better_orders(rest, batch.placement.workers, costs),
    )  # fmt: skip
    return list(completions), costs


def measured(batch: Prepared, run: Run) -> Measured:
    completions, costs = run
    total, bound = makespan(completions), measured_bound(completions, batch.placement.workers, RECIPE, costs)
    handed = losses(completions, batch.placement.workers, RECIPE).handing_over
    predicted = prediction(batch.placement, batch.works, batch.request_ids, completions)
    return Measured(
        total / bound.seconds, total, bound.seconds, handed / total, predicted / total, batch.order, batch.faster
    )


def prediction(
    placement: Placement, works: dict[str, Work], order: Sequence[str], completions: Sequence[Completion]
) -> float:
    """The makespan that the cost model predicts once it has seen all stages up to the end of the eighth clip."""
    costs, done = known_costs(works), 0
    workers = {worker.worker_id: worker for worker in placement.workers}
    for completion in sorted(completions, key=lambda c: c.finished):
        costs.observe(completion, workers[completion.assignment.worker_id])
        done += completion.assignment.stage == V
        if done == LEARNT_AFTER:
            break
    return makespan(list(predict(placement, all_stages(order), costs)))


def report(name: str, runs: Sequence[Measured], extra: str = "") -> None:
    ratios = [one.ratio for one in runs]
    predicted = [one.predicted for one in runs]
    print(
        f"{name:<44} makespan / bound {statistics.mean(ratios):.3f} mean {max(ratios):.3f} worst   "
        f"Ray {statistics.mean(one.ray for one in runs):.1%} (at the speed of GPUs "
        f"{statistics.mean(one.ray / one.faster for one in runs):.2%}, time / "
        f"{statistics.mean(one.faster for one in runs):.0f})   "
        f"predicted {min(predicted):.2f} to {max(predicted):.2f}   {extra}",
        flush=True,
    )


def speed_up(placement: Placement, works: dict[str, Work], one: Measured) -> float:
    """The speed-up over one device that does everything: it takes the sum of all stage times, scaled like the run."""
    alone = sum(sum(seconds_on(placement.workers[0], SLOWER, work)) for work in works.values())
    scaled = one.bound * len(placement.workers) / alone  # if all workers have all stages, the bound is work / workers
    return alone * scaled / one.seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="one seed, fewer cases")
    parser.add_argument(
        "--seconds", type=float, default=4.5, help="about how long a device takes for each of its clips"
    )
    parser.add_argument("--devices", type=int, help="only the cases with this many devices")
    parser.add_argument("--case", help="only this case: 40-step, distilled, 13B distilled or mixed")
    parser.add_argument("--virtual", action="store_true", help="on a virtual clock, without Ray")
    arguments = parser.parse_args()
    seeds = range(1 if arguments.quick else 5)
    same = placement_of("replicated", [DeviceInfo(RTX_4090, 80 * GB)] * 8, "same")
    mixed = placement_of("elastic", MIXED, "mixed")
    workers = (*same.workers, *mixed.workers)
    if not arguments.virtual:
        ray_cluster.connect(None)
    runner = VirtualClock() if arguments.virtual else Drivers(len(seeds), workers)

    def run(placements: Sequence[Placement], batches: Sequence[dict[str, Work]], a_clip: float) -> list[Measured]:
        ready = [
            prepared(placement, works, a_clip * len(works) / len(placement.workers))
            for placement, works in zip(placements, batches, strict=True)
        ]
        return [measured(batch, one) for batch, one in zip(ready, runner.run(ready), strict=True)]

    warm = replace(same, workers=workers)  # the first calls open connections
    run([warm] * len(seeds), [draw_works(64, random.Random(99), "distilled")] * len(seeds), 0.75)

    def is_wanted(case: str, devices: int) -> bool:
        return arguments.case in (None, case) and arguments.devices in (None, devices)

    started = time.monotonic()
    sizes = [(2, 32), (4, 32), (4, 64), (8, 64), (8, 128)]
    for case in ("distilled",) if arguments.quick else ("40-step", "distilled", "13B distilled"):
        for devices, clips in sizes:
            if not is_wanted(case, devices):
                continue
            batches = [draw_works(clips, random.Random(seed), case) for seed in seeds]
            runs = run([best_split(devices, works) for works in batches], batches, arguments.seconds)
            report(f"EV+D split   {case:<14} {devices} devices {clips:>4} clips", runs, runs[0].order)
    for devices in (2, 4, 8):
        if not is_wanted("mixed", devices):
            continue
        universal = placement_of("replicated", [DeviceInfo(RTX_4090, 80 * GB)] * devices, "same")
        batches = [draw_works(16 * devices, random.Random(seed)) for seed in seeds]
        runs = run([universal] * len(seeds), batches, arguments.seconds)
        ups = [speed_up(universal, works, one) for works, one in zip(batches, runs, strict=True)]
        report(f"all on each  mixed          {devices} devices {16 * devices:>4} clips", runs,
               f"{statistics.mean(ups) / devices:.3f} n against one device")  # fmt: skip
    for case in ("mixed", "distilled"):
        if not is_wanted(case, len(MIXED)):
            continue
        batches = [draw_works(64, random.Random(seed), case) for seed in seeds]
        runs = run([mixed] * len(seeds), batches, arguments.seconds)
        report(f"mixed cards  {case:<14} {len(MIXED)} devices   64 clips", runs, "bound: linear program")
    print(
        f"{time.monotonic() - started:.0f} s; {len(workers)} actors per driver, {len(seeds)} drivers; "
        "payloads of 4, 9 and 5 MB per clip, divided by the factor of time"
    )
    if not arguments.virtual:
        ray_cluster.disconnect()


if __name__ == "__main__":
    main()
