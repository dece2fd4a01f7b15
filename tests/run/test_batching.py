"""Requests that share a forward pass give the same clips except for low bits, whatever requests they share it with."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from builders import RECIPE, STAGES, D, E, V
from typer.testing import CliRunner

from ltx_dist.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ltx_dist.cli import app
from ltx_dist.cluster.ray_executor import RayExecutor
from ltx_dist.engine.loop import BatchLoop
from ltx_dist.models.family import FAMILIES
from ltx_dist.pipeline.conditions import Condition
from ltx_dist.pipeline.payloads import Latents
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import Mp4Settings
from ltx_dist.pipeline.work import RenderResult
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.scheduling.batching import OWN, batch_key, shared_settings
from ltx_dist.scheduling.scheduler import Scheduler
from ltx_dist.worker.local_executor import LocalExecutor
from ltx_dist.worker.oom_fallbacks import Fallback
from ltx_dist.worker.spec import WorkerSpec
from ltx_dist.worker.stage_call import StageCall
from ltx_dist.worker.stage_worker import StageWorker

TOLERANCE = 1e-4
"""For latents with a standard deviation near 1, after 3 steps in float32, each of which multiplies the rounding (1e-7).
A wrong seed, prompt or timestep moves them by 0.1 and more, which the tests also see."""

REQUESTS = [
    RenderRequest(f"{i}", f"prompt {i}", "bad", 64, 64, 9, 25.0, 3, 3.0, 0.0, i, 0.05, 0.025, 32) for i in range(3)
]


VERSIONS = [("0.9.0", "LTXPipeline"), ("0.9.5", "LTXConditionPipeline")]
CHANGES = {
    "guided": {},
    "not guided": {"guidance_scale": 1.0},
    "rescaled": {"guidance_rescale": 0.7},
    "own timesteps": {"num_inference_steps": 2, "timesteps": (1000.0, 500.0)},
}
TAKES_TIMESTEPS = "LTXConditionPipeline"
"""The other pipeline's schedule has dynamic shifting, with which diffusers takes no timesteps."""


@pytest.fixture(scope="module", params=VERSIONS, ids=str)
def checkpoint(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    return open_checkpoint(str(tiny.save_checkpoint(folder, *request.param)))


@pytest.fixture(scope="module")
def worker(checkpoint: Checkpoint) -> StageWorker:
    return StageWorker(spec(checkpoint, Worker("cpu:0", STAGES, "cpu", threads=1, batch_size=4)))


def spec(checkpoint: Checkpoint, worker: Worker) -> WorkerSpec:
    return WorkerSpec(worker, checkpoint, "float32", Mp4Settings(preset="ultrafast"))


def latents(worker: StageWorker, requests: Sequence[RenderRequest]) -> list[Latents]:
    *conditionings, report = worker.run(E, requests)
    assert report.error is None, report.error
    *found, report = worker.run(D, requests, *conditionings)
    assert report.error is None, report.error
    assert len(report.latents_sha256) == len(requests)
    return found


def difference(one: Latents, other: Latents) -> float:
    return (one.latents - other.latents).abs().max().item()


@pytest.mark.parametrize(
    ("checkpoint", "changed"),
    [
        pytest.param(version, changed, id=f"{version[1]}, {name}")
        for version in VERSIONS
        for name, changed in CHANGES.items()
        if "timesteps" not in changed or version[1] == TAKES_TIMESTEPS
    ],
    indirect=["checkpoint"],
)
def test_latents_are_those_of_a_pass_of_their_own_but_for_low_bits(worker: StageWorker, changed: dict[str, Any]):
    requests = [replace(request, **changed) for request in REQUESTS]
    together = latents(worker, requests)
    for request, shared in zip(requests, together, strict=True):
        (alone,) = latents(worker, [request])
        assert difference(shared, alone) < TOLERANCE
        assert shared.latents.shape == alone.latents.shape and shared.latents.is_contiguous()
        assert shared.latents.untyped_storage().nbytes() == alone.latents.untyped_storage().nbytes(), "no view"
        assert torch.equal(shared.generator_state, alone.generator_state), "so the decode noise is the same, too"
    assert difference(together[0], together[1]) > 0.1, "they are different clips"


def test_the_initial_noise_is_bit_for_bit_that_of_the_clip_alone(worker: StageWorker):
    """What the transformer gets at its first step, which is all noise; it is the same for both prompts of a clip."""
    seen: list[torch.Tensor] = []
    transformer = worker._components._modules["transformer"]
    hook = transformer.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["hidden_states"].clone()), with_kwargs=True
    )
    try:
        latents(worker, REQUESTS)
        together = seen[0]
        for row, request in enumerate(REQUESTS):
            seen.clear()
            latents(worker, [request])
            assert torch.equal(together[[row, row + len(REQUESTS)]], seen[0])
    finally:
        hook.remove()


def test_prompts_are_encoded_together(worker: StageWorker):
    *together, _ = worker.run(E, REQUESTS)
    for request, shared in zip(REQUESTS, together, strict=True):
        alone, _ = worker.run(E, [request])
        assert (shared.prompt_embeds - alone.prompt_embeds).abs().max() < TOLERANCE
        assert torch.equal(shared.prompt_attention_mask, alone.prompt_attention_mask)
        assert torch.equal(shared.negative_prompt_embeds, alone.negative_prompt_embeds), "always by itself"


@pytest.mark.parametrize("field", [field.name for field in fields(RenderRequest)])
def test_what_the_pipeline_call_shares_must_be_equal(field: str):
    changed = replace(REQUESTS[0], **{field: "another"})
    own = field in OWN or field in ("decode_timestep", "decode_noise_scale")
    one, other = shared_settings(RECIPE, [changed, REQUESTS[0]])
    assert (one == other) == own


def test_a_clip_with_media_has_its_pass_to_itself():
    clips = [replace(request, seed=3, conditions=(Condition("/a.png", "1"),)) for request in REQUESTS[:2]]
    one, other = shared_settings(FAMILIES[0].recipe, clips)
    assert one != other


SIZES = [(64, 64), (64, 64), (64, 96), (64, 64), (64, 96), (64, 64), (64, 64)]
MIXED = [
    replace(REQUESTS[0], request_id=f"{i}", prompt=f"prompt {i}", seed=i, height=height, width=width)
    for i, (height, width) in enumerate(SIZES)
]


def render(executor: Any, placement: Placement) -> tuple[dict[str, RenderResult], list[tuple[str, ...]]]:
    renderer = BatchLoop(Scheduler(placement, batch_key=batch_key(RECIPE, MIXED)), executor)
    try:
        results = {result.request.request_id: result for result in renderer.render(MIXED)}
    finally:
        executor.shutdown()
    return results, [c.assignment.request_ids for c in renderer.completions if c.assignment.stage == D]


ONE = Worker("cpu:0", STAGES, "cpu", threads=1, batch_size=3, host_slots=8)
PLACEMENT = Placement(RECIPE, "shared", (ONE,), {D: 3, V: 3})


def check(results: dict[str, RenderResult], passes: list[tuple[str, ...]]) -> None:
    assert {result.status for result in results.values()} == {"done"} and len(results) == len(MIXED)
    assert passes == [("0", "1", "3"), ("2", "4"), ("5", "6")]
    for made, result in results.items():
        (denoised,) = [c for c in result.completions if c.assignment.stage == D]
        assert made in denoised.assignment.request_ids
        assert (result.video.height, result.video.width) == SIZES[int(made)]


def test_all_clips_come_and_none_shares_a_pass_with_another_size(checkpoint: Checkpoint):
    check(*render(LocalExecutor([spec(checkpoint, ONE)]), PLACEMENT))


@pytest.mark.parametrize("checkpoint", [("0.9.5", "LTXPipeline")], indirect=True)
def test_actors_share_passes_as_well(ray_cluster: None, checkpoint: Checkpoint):
    check(*render(RayExecutor([spec(checkpoint, ONE)]), PLACEMENT))


class Short(StageWorker):
    """A worker whose device has no memory for more than one clip at a time."""

    def _run_stage(self, call: StageCall, fallback: Fallback) -> Any:
        if len(call.requests) > 1 and call.stage.name == D:
            raise torch.OutOfMemoryError("injected")
        return super()._run_stage(call, fallback)


def test_without_memory_for_all_they_go_one_by_one(checkpoint: Checkpoint):
    executor = LocalExecutor([spec(checkpoint, ONE)], Short)
    results, passes = render(executor, PLACEMENT)
    assert {result.status for result in results.values()} == {"done"}
    assert sorted(name for (name, *others) in passes if not others) == sorted(results), "each by itself in the end"
    assert {c.report.fallback for result in results.values() for c in result.completions if c.error is None} == {None}


def test_a_killed_run_goes_on_after_what_shared_passes_left(tmp_path: Path):
    checkpoint = tiny.save_checkpoint(tmp_path / "checkpoint", "0.9.5")
    (tmp_path / "prompts.txt").write_text("".join(f"clip number {index}\n" for index in range(9)))
    folder = tmp_path / "out"
    settings = [
        f"model.checkpoint={checkpoint}", "defaults.height=64", "defaults.width=64", "defaults.num_frames=9",
        "defaults.num_inference_steps=4", "placement.threads=1", "placement.device=cpu", "denoise.batch_size=3",
    ]  # fmt: skip
    arguments = ["render", str(tmp_path / "prompts.txt"), "-o", str(folder)]
    arguments += [item for setting in settings for item in ("--set", setting)]
    process = subprocess.Popen([sys.executable, "-m", "ltx_dist.cli", *arguments], stdout=subprocess.DEVNULL)
    spool = folder / ".ltx-dist" / "spool"
    while len(list(spool.glob("*.safetensors"))) < 2:
        assert process.poll() is None, "the batch is long enough to be killed"
        time.sleep(0.01)
    process.kill()
    process.wait()
    kept = {path.stem for path in spool.glob("*.safetensors")} - {path.stem for path in folder.glob("*.mp4")}
    assert CliRunner().invoke(app, arguments).exit_code == 0
    sidecars = [json.loads(path.with_suffix(".json").read_text()) for path in folder.glob("*.mp4")]
    assert len(sidecars) == 9 and {sidecar["status"] for sidecar in sidecars} == {"done"}
    events = json.loads((folder / "run.json").read_text())["events"]
    denoised = [{e["request_id"], *e.get("shared_with", ())} for e in events if e["stage"] == "denoise"]
    assert kept and not any(kept & names for names in denoised), "latents that were kept are only decoded"
    assert max(map(len, denoised)) == 3
    in_pass = {s["request"]["request_id"]: s["stages"].get("denoise", {}).get("clips_in_pass", 1) for s in sidecars}
    assert all(in_pass[name] == len(names) for names in denoised for name in names)
    again = [*arguments, "--set", "denoise.batch_size=1", "--exact"]
    assert CliRunner().invoke(app, again).exit_code == 0
    changed = [json.loads(path.with_suffix(".json").read_text())["render_key"] for path in folder.glob("*.mp4")]
    assert not set(changed) & {sidecar["render_key"] for sidecar in sidecars}, "exact takes none of these for its own"
