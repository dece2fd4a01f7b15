"""Measures the time that Ray costs the bottleneck stage of a batch.

    python benchmarks/ray_share.py [--stages 0.6 20] [--clips 12]

Three actors (an encoder, a transformer and a decoder) sleep as long as their stages take (`replay_worker.py`), without
compression of time. Payloads have their real sizes: 4 MB embeddings, 9 MB latents, 5 MB mp4s. It prints how long the
transformer's actor was idle between two clips although the next one was ready, relative to the stage. Aims: at most
1 % of 20 s, and at most 5 % of 0.6 s. `overhead.py` runs this at its end.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

from replay_worker import REFERENCE, ReplaySpec, ReplayWorker, replay_request
from schedule import known_costs
from text_to_video import RECIPE, STAGES, D, V

from ltx_dist.cluster import ray_cluster
from ltx_dist.cluster.ray_executor import RayExecutor
from ltx_dist.engine.loop import BatchLoop
from ltx_dist.pipeline.timeline import lanes
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.scheduling.scheduler import Scheduler


def gaps(executor: RayExecutor, placement: Placement, stage_seconds: float, num_clips: int) -> list[float]:
    """Seconds between the end of one denoising and the start of the next, on the driver's clock."""
    works = {f"r{index}": (0.02, stage_seconds, 0.2) for index in range(num_clips)}
    renderer = BatchLoop(Scheduler(placement, known_costs(works)), executor)
    for result in renderer.render([replay_request(name, work) for name, work in works.items()]):
        assert result.status == "done", result.error
    (lane,) = (lane for worker, lane in lanes(renderer.completions, RECIPE).items() if worker == "denoise")
    return [later.started - earlier.finished for earlier, later in zip(lane, lane[1:], strict=False)]


def measure(stages: Sequence[float], num_clips: int) -> None:
    workers = tuple(Worker(str(stage), (stage,), "cuda", device_name=REFERENCE.device_name) for stage in STAGES)
    placement = Placement(RECIPE, "pinned", workers, {D: 2, V: 2})
    ray_cluster.connect(None)
    specs = [ReplaySpec(worker) for worker in workers]
    executor = RayExecutor(specs, worker_class=ReplayWorker)  # pyright: ignore[reportArgumentType]
    gaps(executor, placement, 0.1, 4)  # the first calls open connections
    for seconds in stages:
        count = num_clips if seconds < 5 else 3
        found = gaps(executor, placement, seconds, count)
        mean = statistics.mean(found)
        print(
            f"between two clips of a bottleneck stage of {seconds:g} s, Ray takes {mean * 1e3:.1f} ms (mean of "
            f"{len(found)}; worst {max(found) * 1e3:.1f} ms): {mean / seconds:.2%} of the stage",
            flush=True,
        )
    executor.shutdown()
    ray_cluster.disconnect()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--stages", type=float, nargs="+", default=[0.6, 20.0], help="seconds of the denoise stage")
    parser.add_argument("--clips", type=int, default=12)
    arguments = parser.parse_args()
    measure(arguments.stages, arguments.clips)


if __name__ == "__main__":
    main()
