"""Stages that share a component swap nothing, and host stages follow each other (with stages made for this test)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import tiny
import torch
from another_recipe import CHECK, LTX_VIDEO
from another_recipe import FAMILY as GRADED
from builders import make_request

from ltx_dist.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ltx_dist.engine.loop import BatchLoop
from ltx_dist.models.family import Family, StageContext
from ltx_dist.pipeline.payloads import EncodedVideo, Latents
from ltx_dist.pipeline.recipe import Recipe
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import Mp4Settings
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.scheduling.scheduler import Scheduler
from ltx_dist.worker.host_stages import HostOperations
from ltx_dist.worker.local_executor import LocalExecutor
from ltx_dist.worker.spec import WorkerSpec
from ltx_dist.worker.stage_call import StageCall
from ltx_dist.worker.stage_worker import StageWorker

FACTOR = 0.5
REQUEST = make_request("clip", num_inference_steps=2, max_sequence_length=32, seed=3)
T5, TRANSFORMER, VAE = "text_encoder", "transformer", "vae"


class Soften:
    """Moves latents towards their mean. Asks for the transformer, to share it with the stage before."""

    def __init__(self, components: Mapping[str, Any], *_: object) -> None:
        assert set(components) == {TRANSFORMER}

    def run(
        self, requests: Sequence[RenderRequest], inputs: Sequence[Mapping[str, Any]], context: StageContext
    ) -> list[Latents]:
        assert all(set(given) == {"encode_text", "denoise"} for given in inputs), "all that its row names"
        return [replace(given["denoise"], latents=given["denoise"].latents * FACTOR) for given in inputs]


ROWS = {stage.name: stage for stage in GRADED.recipe}
SOFTEN = replace(
    ROWS["grade"], operation="soften", components=(TRANSFORMER,), inputs=("encode_text", "denoise"),
)  # fmt: skip
SOFTENED = replace(
    GRADED,
    recipe=Recipe("softened", tuple(SOFTEN if stage.name == "grade" else stage for stage in GRADED.recipe)),
    operations={**GRADED.operations, "soften": f"{__name__}:Soften"},
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(str(tiny.save_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", "0.9.5")))


def spec(checkpoint: Checkpoint, family: Family, name: str = "cpu:0", **worker: Any) -> WorkerSpec:
    stages = tuple(stage for stage in family.recipe.on_device if stage in family.recipe.of(REQUEST))
    made = Worker(name, stages, "cpu", threads=1, **worker)
    return WorkerSpec(made, checkpoint, "float32", Mp4Settings(preset="ultrafast"), family_override=family)


def run_through(worker: StageWorker, family: Family) -> tuple[dict[str, Any], dict[str, tuple[str, ...]]]:
    """Every stage's output as it leaves the worker, and what was on the device after each."""
    outputs: dict[str, Any] = {}
    on_device: dict[str, tuple[str, ...]] = {}
    for stage in (family.recipe[name] for name in family.recipe.of(REQUEST)):
        inputs = [outputs.get(name) for name in stage.inputs]
        outputs[stage.name], report = worker.run(stage.name, [REQUEST], *inputs)
        assert report.error is None, report.error
        on_device[stage.name] = worker.state().components
    return outputs, on_device


def test_stages_that_share_a_component_swap_nothing_and_host_stages_follow_each_other(checkpoint: Checkpoint) -> None:
    worker = StageWorker(spec(checkpoint, SOFTENED, residency="time_sliced"))
    outputs, on_device = run_through(worker, SOFTENED)
    assert on_device["encode_text"] == (T5,)
    assert on_device["denoise"] == on_device["grade"] == (TRANSFORMER,)
    assert on_device["decode"] == on_device[CHECK.name] == (VAE,)
    uploads = {name: mover.uploads for name, mover in worker._components._movers.items() if mover.uploads}
    assert uploads == {T5: 1, TRANSFORMER: 1, VAE: 1}
    assert torch.equal(outputs["grade"].latents, outputs["denoise"].latents * FACTOR)
    assert outputs["decode"] is None, "frames never leave the worker"
    assert isinstance(outputs["encode_video"], EncodedVideo) and outputs[CHECK.name] == outputs["encode_video"]
    plain, _ = run_through(StageWorker(spec(checkpoint, LTX_VIDEO)), LTX_VIDEO)
    assert torch.equal(plain["denoise"].latents, outputs["denoise"].latents)
    assert plain["encode_video"].frames_sha256 != outputs["encode_video"].frames_sha256


def test_a_clip_whose_last_host_stage_fails_is_decoded_again_elsewhere(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [replace(REQUEST, request_id=name, prompt=name) for name in ("a", "b", "c")]
    failures = ["the first check fails"]

    run_whole = HostOperations._run

    def run(operations: HostOperations, call: StageCall, request: Any, outputs: Any) -> Any:
        if call.stage.name == CHECK.name and failures:
            raise OSError(failures.pop())
        return run_whole(operations, call, request, outputs)

    monkeypatch.setattr(HostOperations, "_run", run)
    specs = [spec(checkpoint, SOFTENED, name) for name in ("cpu:0", "cpu:1")]
    executor = LocalExecutor(specs)
    bounds = dict.fromkeys(SOFTENED.recipe.on_device[1:], 2)
    placement = Placement(SOFTENED.recipe, "replicated", tuple(spec.worker for spec in specs), bounds)
    results = {r.request.request_id: r for r in BatchLoop(Scheduler(placement), executor).render(requests)}
    executor.shutdown()
    assert {result.status for result in results.values()} == {"done"}
    whole, again = list(SOFTENED.recipe.of(REQUEST)), ["decode", "encode_video", CHECK.name]
    ran = {name: [c.assignment.stage for c in result.completions] for name, result in results.items()}
    assert sorted(ran.values(), key=len) == [whole, whole, whole + again]
    completions = next(result.completions for result in results.values() if len(result.completions) > len(whole))
    checked_on = [c.assignment.worker_id for c in completions if c.assignment.stage == CHECK.name]
    assert len(set(checked_on)) == 2, "frames are made again where they are encoded"
