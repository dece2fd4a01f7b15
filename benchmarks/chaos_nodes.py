"""Kills two of three nodes while clips are being rendered, and adds another. Each node has one fake GPU.

    python benchmarks/chaos_nodes.py

The raylets are real, because only those can be lost like this. It takes a while until a new node and its worker are up,
so the batch gets more clips until that worker has had some. This is why the command's loop runs here with Ray's
executor, and not the command itself.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import disturbed  # noqa: F401 (the environment)
import ray
from forked import save_checkpoint
from proofs import run_proofs
from ray.cluster_utils import Cluster
from text_to_video import RECIPE, STAGES, D, V

from ltx_dist.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ltx_dist.cluster.ray_executor import RayExecutor
from ltx_dist.engine.executor import Executor
from ltx_dist.engine.loop import BatchLoop
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import Mp4Settings
from ltx_dist.pipeline.work import RenderResult
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.placement.inventory import DeviceInfo
from ltx_dist.scheduling.scheduler import Scheduler
from ltx_dist.worker.local_executor import LocalExecutor
from ltx_dist.worker.spec import WorkerSpec

AT_LEAST = 20
BY_THE_NEW_NODE = 3
UNDER_WAY = 6

REQUESTS = [
    RenderRequest(f"{i}", "a prompt", "", 64, 64, 9, 25.0, 20, 3.0, 0.0, i, 0.05, 0.025, 32) for i in range(2000)
]


def worker(name: str, node_id: str | None = None) -> Worker:
    """A worker to which Ray gives a GPU, and which computes on the CPU."""
    return Worker(name, STAGES, "cpu", threads=1, num_gpus=1.0, node_id=node_id)


class Batch:
    """A batch loop, its workers and its results."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self.num_hired = 0
        self.newcomers: set[str] = set()
        self.results: list[RenderResult] = []

    def spec(self, worker: Worker) -> WorkerSpec:
        return WorkerSpec(worker, self._checkpoint, "float32", Mp4Settings())

    def hire(self, gpu: DeviceInfo, num_workers: int) -> WorkerSpec:
        self.num_hired += 1
        return self.spec(worker(f"new{self.num_hired}", gpu.node_id))

    def by_the_new_node(self) -> int:
        """The number of stages that the new node's workers ended.

        Its worker is one that was hired, or one that was still loading when its old node was lost.
        """
        ended = (c.assignment for c in self.renderer.completions if c.failure is None)
        return sum(assignment.worker_id in self.newcomers for assignment in ended)

    def begin(self, workers: Sequence[Worker], executor: Executor) -> None:
        placement = Placement(RECIPE, "chaos", tuple(workers), {D: 4, V: 4})
        self.renderer = BatchLoop(Scheduler(placement), executor)


def nodes(root: Path) -> str:
    batch = Batch(open_checkpoint(str(save_checkpoint(root / "checkpoint"))))
    options: dict[str, Any] = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": 100 << 20}
    cluster = Cluster(
        initialize_head=True, head_node_args=options | {"temp_dir": str(root / "ray"), "include_dashboard": False}
    )
    others = [cluster.add_node(**options) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    workers = [worker(f"w{i}") for i in range(3)]
    executor = RayExecutor([batch.spec(one) for one in workers], hire=batch.hire)
    batch.begin(workers, executor)
    num_begun = rendered_when_lost = 0
    new = None
    try:
        while True:
            more = UNDER_WAY - (num_begun - len(batch.results))
            if num_begun >= AT_LEAST and batch.by_the_new_node() >= BY_THE_NEW_NODE:
                more = 0
                if len(batch.results) == num_begun:
                    break
            batch.renderer.begin(REQUESTS[num_begun : num_begun + more])
            num_begun += more
            batch.results += batch.renderer.turn()
            if others and batch.results and len(executor._workers._homes) == len(workers):
                rendered_when_lost = len(batch.results)
                while others:
                    cluster.remove_node(others.pop(), allow_graceful=False)
                new = cluster.add_node(**options)
            homes = executor._workers._homes.items()
            batch.newcomers |= {name for name, home in homes if new and home.node_id == new.node_id}
    finally:
        executor.shutdown()
        ray.shutdown()
        cluster.shutdown()
    assert all(result.status == "done" for result in batch.results) and len(batch.results) == num_begun
    failed = [c.assignment for c in batch.renderer.completions if c.failure]
    again = {name for assignment in failed for name in assignment.request_ids}
    assert len(again) <= UNDER_WAY, again
    by_the_new_node = batch.by_the_new_node()
    assert hashes(batch.results) == in_peace(batch, num_begun)
    return (
        f"two of three nodes lost after {rendered_when_lost} clips, one added: {num_begun} of {num_begun} done, "
        f"{len(again)} rendered again ({UNDER_WAY} were in flight), {by_the_new_node} stages on the new node, "
        "hashes equal"
    )


def in_peace(batch: Batch, num_clips: int) -> dict[str, tuple[str, str]]:
    """The hashes of an undisturbed run in one process."""
    one = worker("w0")
    executor = LocalExecutor([batch.spec(one)])
    batch.begin([one], executor)
    try:
        return hashes(list(batch.renderer.render(REQUESTS[:num_clips])))
    finally:
        executor.shutdown()


def hashes(results: Sequence[RenderResult]) -> dict[str, tuple[str, str]]:
    return {r.request.request_id: (r.video.frames_sha256, r.video.mp4_sha256) for r in results if r.video}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="chaos-", dir="/tmp") as folder:
        os.environ["LTX_DIST_CACHE"] = f"{folder}/cache"
        run_proofs({"nodes": nodes}, Path(folder))
