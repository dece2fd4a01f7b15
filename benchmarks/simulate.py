"""Measures what a scheduling decision costs, and whether this grows with the batch. Needs no device, Ray or model.

    python benchmarks/simulate.py [--quick]

Batches of mixed sizes run on 10 to 1,000 workers, on a virtual clock. For each it prints the CPU time per decision in
microseconds (the scheduler chooses an assignment and takes in its end; the simulated devices do not count), the
scheduler's bytes per clip, and the makespan divided by its lower bound. Aims: at most 50 us per decision, and at most
1.5 times as much for 100,000 clips as for 1,000; at most 1 KB per clip.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import random
import time
import tracemalloc

from replay import Replayed, draw_works
from text_to_video import RECIPE, STAGES

from ltx_dist.estimates.bounds import lower_bound
from ltx_dist.estimates.costs import Work
from ltx_dist.pipeline.work import Assignment, Completion, StageReport
from ltx_dist.pipeline.worker import Placement
from ltx_dist.placement.fitting import BatchDemand, Models
from ltx_dist.placement.inventory import DeviceInfo, Inventory
from ltx_dist.placement.placement import LayoutWish, Wishes, place
from ltx_dist.scheduling.scheduler import Scheduler

GB = 10**9
DEMAND = BatchDemand(
    Models(RECIPE, {"text_encoder": int(9.5 * GB), "transformer": int(3.8 * GB), "vae": int(1.1 * GB)})
)


LAYOUTS: tuple[tuple[LayoutWish, bool], ...] = (("pinned", False), ("replicated", False), ("replicated", True))
"""Layouts, and whether their devices are of three kinds."""


def fleet(layout: LayoutWish, num_workers: int, mixed: bool) -> Placement:
    names = ("NVIDIA H100 80GB HBM3", "NVIDIA GeForce RTX 4090", "NVIDIA A100-SXM4-80GB") if mixed else ("NVIDIA H100",)
    gpus = tuple(DeviceInfo(names[index % len(names)], 80 * GB, index=index) for index in range(num_workers))
    return place(Wishes(layout=layout), Inventory(gpus, 16), DEMAND)


def run(placement: Placement, works: dict[str, Work]) -> tuple[float, int, float]:
    """Seconds spent in the scheduler, number of assignments, and makespan."""
    costs = Replayed(works)
    workers = {worker.worker_id: worker for worker in placement.workers}
    gc.collect()
    spent, count, now = 0.0, 0, 0.0
    running: list[tuple[float, int, Assignment, float]] = []
    started = time.thread_time()
    scheduler = Scheduler(placement, costs)
    scheduler.add(works, RECIPE.names)
    spent += time.thread_time() - started
    while not scheduler.is_finished:
        started = time.thread_time()
        assignments = scheduler.schedule()
        spent += time.thread_time() - started
        for assignment in assignments:
            count += 1
            seconds = costs.seconds(assignment, workers[assignment.worker_id])
            heapq.heappush(running, (now + seconds, count, assignment, now))
        now, _, assignment, began = heapq.heappop(running)
        completion = Completion(assignment, began, now, StageReport(now - began))
        started = time.thread_time()
        scheduler.update(completion)
        spent += time.thread_time() - started
    return spent, count, now


def bytes_a_clip(placement: Placement, works: dict[str, Work]) -> float:
    costs = Replayed(works)
    gc.collect()
    tracemalloc.start()
    scheduler = Scheduler(placement, costs)
    scheduler.add(works, RECIPE.names)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size / len(works)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a tenth of the largest sizes")
    quick = parser.parse_args().quick
    top = 10_000 if quick else 100_000
    cases: list[tuple[LayoutWish, int, int, bool]] = [
        (layout, clips, workers, mixed)
        for layout, mixed in LAYOUTS
        for clips, workers in ((1_000, 10), (1_000, 1_000), (top, 10), (top, 1_000))
    ]
    small: dict[tuple[str, bool, int], float] = {}
    for layout, clips, workers, mixed in cases:
        placement = fleet(layout, workers, mixed)
        works = draw_works(clips, random.Random(0))
        spent, count, makespan = run(placement, works)
        size = bytes_a_clip(placement, works)
        bound = lower_bound(list(works.values()), placement.workers, STAGES, Replayed(works)).seconds
        each = spent / count * 1e6
        grown = each / small.setdefault((layout, mixed, workers), each)
        print(
            f"{layout:<10} {'3 kinds' if mixed else '1 kind ':<7} {clips:>7,} clips {workers:>5,} workers: "
            f"{each:5.1f} us per decision ({grown:.2f} x), {size:4.0f} bytes per clip, "
            f"makespan / bound {makespan / bound:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
