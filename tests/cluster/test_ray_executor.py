"""RayExecutor with real actors and tiny real models: states, payloads, killed workers, workers that cannot start."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
import tiny
from builders import RECIPE, D, E, M
from ray.exceptions import OutOfMemoryError

from ltx_dist.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ltx_dist.cluster.ray_executor import RayExecutor
from ltx_dist.engine import deadlines, workers
from ltx_dist.engine.executor import WorkerStartError
from ltx_dist.engine.loop import BatchLoop
from ltx_dist.pipeline.payloads import StageOutput
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import Mp4Settings
from ltx_dist.pipeline.work import Assignment, Completion, Failure
from ltx_dist.pipeline.worker import Placement
from ltx_dist.placement.fitting import BatchDemand, Models
from ltx_dist.placement.inventory import Inventory
from ltx_dist.placement.placement import Wishes, place
from ltx_dist.scheduling.scheduler import Scheduler
from ltx_dist.worker.spec import WorkerSpec
from ltx_dist.worker.stage_worker import StageWorker

pytestmark = pytest.mark.ray

ON_CPU = place(
    Wishes(layout="replicated", device="cpu", devices=2, threads=1),
    Inventory((), 2),
    BatchDemand(Models(RECIPE, {"text_encoder": 0, "transformer": 0, "vae": 0})),
)
REPLICATED = replace(ON_CPU, workers=tuple(replace(worker, num_gpus=1.0) for worker in ON_CPU.workers))
"""Two workers that each hold a fake GPU of Ray's, and compute on the CPU."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(str(tiny.save_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", "0.9.5")))


def make_request(index: int, num_inference_steps: int = 2) -> RenderRequest:
    return RenderRequest(
        f"clip-{index}", "a prompt", "", 64, 64, 9, 25.0, num_inference_steps, 3.0, 0.0, index, 0.05, 0.025, 32
    )


def make_executor(
    checkpoint: Checkpoint, placement: Placement = REPLICATED, worker_class: type[StageWorker] = StageWorker
) -> RayExecutor:
    specs = [WorkerSpec(w, checkpoint, "float32", Mp4Settings()) for w in placement.workers]
    return RayExecutor(specs, worker_class)


def wait_for_one(executor: RayExecutor) -> Completion:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if completions := executor.wait(1.0):
            return completions[0]
    raise AssertionError("nothing ended within 120 s")


def test_steps_are_seen_while_a_stage_runs_and_outputs_stay_out_of_the_driver(ray_cluster, checkpoint: Checkpoint):
    executor = make_executor(checkpoint)
    worker_id = REPLICATED.workers[0].worker_id
    try:
        request = make_request(0, num_inference_steps=1600)  # for seconds: a worker is asked twice in one
        executor.submit(Assignment(("clip-0",), E, worker_id), [request])
        assert wait_for_one(executor).error is None
        assert ray.available_resources().get("GPU", 0) == 1, "each of the two workers holds a GPU of its own"
        executor.submit(Assignment(("clip-0",), D, worker_id), [request])
        steps = set()
        while not (completions := executor.wait(0.02)):
            steps |= {state.step for state in executor.worker_states() if state.stage == D}
        assert completions[0].error is None and completions[0].video is None
        assert len(steps) >= 2, steps
        assert isinstance(executor._outputs.get("clip-0", D), ray.ObjectRef)
        assert not executor._outputs.holds("clip-0", E), "no later stage reads the text's embeddings"
    finally:
        executor.shutdown()


def test_a_killed_worker_costs_no_clip(ray_cluster, checkpoint: Checkpoint):
    executor = make_executor(checkpoint)
    pids = {
        name: ray.get(actor.__ray_call__.remote(lambda self: os.getpid()))
        for name, actor in executor._workers.actors.items()
    }
    renderer = BatchLoop(Scheduler(REPLICATED), executor)
    try:
        results = []
        for result in renderer.render([make_request(index, num_inference_steps=40) for index in range(6)]):
            if not results:
                os.kill(pids["cpu:1"], signal.SIGKILL)
            results.append(result)
        assert {result.status for result in results} == {"done"} and len(results) == 6
        assert any(completion.worker_lost for completion in renderer.completions), "the kill was noticed"
    finally:
        executor.shutdown()


def test_a_stage_that_never_returns_is_killed_and_charged(
    ray_cluster, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(deadlines, "LEAST_SECONDS", 20.0)
    monkeypatch.setattr(workers, "HANG_LOOK_SECONDS", 0.5)
    monkeypatch.setattr(deadlines, "FACTOR", 50.0)  # tiny steps vary more than a real model's
    marker = tmp_path / "hung"

    class Hanging(StageWorker):
        """The first denoising of clip-3 never returns from a C call that ignores signals and holds the GIL."""

        def run(
            self, stage: str, requests: Sequence[RenderRequest], *payloads: StageOutput | None, keys: Any = ()
        ) -> Any:
            if stage == D and requests[0].request_id == "clip-3" and not marker.exists():
                marker.touch()
                signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
                ctypes.PyDLL(None).pause()
            return super().run(stage, requests, *payloads, keys=keys)

    executor = make_executor(checkpoint, worker_class=Hanging)
    try:
        renderer = BatchLoop(Scheduler(REPLICATED), executor)
        results = list(renderer.render([make_request(index, num_inference_steps=8) for index in range(6)]))
        assert {result.status for result in results} == {"done"} and len(results) == 6
        lost = [completion for completion in renderer.completions if completion.failure]
        assert [(c.assignment.clips, c.assignment.stage) for c in lost if c.failure is Failure.HANG] == [("clip-3", D)]
        beside = {c.assignment.stage for c in lost if c.failure is not Failure.HANG}
        assert beside <= {M}, "an mp4 that was made beside it is lost with its worker"
    finally:
        executor.shutdown()


def test_a_worker_that_cannot_start_ends_the_run_and_says_why(ray_cluster, checkpoint: Checkpoint, tmp_path: Path):
    executor = make_executor(replace(checkpoint, path=tmp_path / "gone"))
    try:
        with pytest.raises(
            WorkerStartError, match=r"^worker cpu:\d: .*gone/text_encoder is not on this machine; [^\n]*$"
        ):
            list(BatchLoop(Scheduler(REPLICATED), executor).render([make_request(0)]))
    finally:
        executor.shutdown()


def test_a_worker_that_rays_memory_monitor_ends_is_replaced(ray_cluster, checkpoint: Checkpoint, tmp_path: Path):
    """What its calls then raise is none of the errors of an actor that died."""
    marker = tmp_path / "struck"

    class Struck(StageWorker):
        def run(
            self, stage: str, requests: Sequence[RenderRequest], *payloads: StageOutput | None, keys: Any = ()
        ) -> Any:
            if stage == D and requests[0].request_id == "clip-2" and not marker.exists():
                marker.touch()
                raise OutOfMemoryError("the node was running low on memory")
            return super().run(stage, requests, *payloads, keys=keys)

    executor = make_executor(checkpoint, worker_class=Struck)
    renderer = BatchLoop(Scheduler(REPLICATED), executor)
    try:
        results = list(renderer.render([make_request(index) for index in range(4)]))
        assert {result.status for result in results} == {"done"} and len(results) == 4
        lost = [completion for completion in renderer.completions if completion.worker_lost]
        assert lost and all("low on memory" in (completion.error or "") for completion in lost)
    finally:
        executor.shutdown()
