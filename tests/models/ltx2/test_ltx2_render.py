"""Whole batches of LTX-2.x: every layout, local and through Ray, gives the frames and the sound of the monolith."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import loras
import monolith_ltx2 as monolith
import numpy as np
import PIL.Image
import pytest
import tiny_ltx2 as tiny
import torch
from typer.testing import CliRunner

from ltx_dist.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ltx_dist.checkpoints.lora_files import linear_layers, with_loras
from ltx_dist.cli import app
from ltx_dist.cluster import ray_executor
from ltx_dist.engine.loop import BatchLoop
from ltx_dist.inputs.config import RenderConfig
from ltx_dist.models.family import family_of
from ltx_dist.models.ltx2.load import load_component
from ltx_dist.pipeline.conditions import Condition, Lora
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import Mp4Settings
from ltx_dist.pipeline.work import RenderResult
from ltx_dist.pipeline.worker import Placement
from ltx_dist.placement.fitting import BatchDemand, Models
from ltx_dist.placement.inventory import Inventory
from ltx_dist.placement.placement import Wishes, place
from ltx_dist.run.batch import open_batch
from ltx_dist.scheduling.scheduler import Scheduler
from ltx_dist.worker.local_executor import LocalExecutor
from ltx_dist.worker.spec import WorkerSpec

SIZES = {"defaults.height": 128, "defaults.width": 192, "defaults.num_frames": 17, "defaults.max_sequence_length": 16}
ONE_PASS = "defaults.spatio_temporal_guidance_blocks=[1]"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_checkpoint("2.3", tmp_path_factory.mktemp("tiny") / "2.3")


@pytest.fixture(scope="module")
def checkpoint(folder: Path, requests: list[RenderRequest]) -> Checkpoint:
    return with_loras(open_checkpoint(str(folder)), requests)


@pytest.fixture(scope="module")
def requests(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[RenderRequest]:
    """One clip of each kind, so that clips with different stages share a batch."""
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    noise = np.random.default_rng(0).integers(0, 255, (5, 8, 3), dtype=np.uint8)
    PIL.Image.fromarray(noise).resize((96, 64), PIL.Image.Resampling.BICUBIC).save(path)
    picture = Condition(str(path), hashlib.sha256(path.read_bytes()).hexdigest(), fit="stretch", crf=33)
    cut = replace(picture, fit="crop")  # as the pipeline of keyframes does itself
    keyframe = replace(cut, frame_index=9, strength=0.8)
    plain = tiny.make_request
    linears = linear_layers(open_checkpoint(str(folder)))
    tensors = {
        name if "connectors." in name else f"transformer.{name}": a for name, a in loras.make_lora(linears).items()
    }
    file = loras.save(path.parent / "lora.safetensors", tensors)
    lora = Lora(str(file), hashlib.sha256(file.read_bytes()).hexdigest(), 0.5)
    return [
        plain("guided"),
        tiny.two_passes(tiny.unguided(plain("two-passes", seed=6)), loras=(lora,)),
        plain("first-frame", conditions=(picture,), seed=7),
        tiny.two_passes(tiny.unguided(plain("keyframes", conditions=(cut, keyframe), seed=8))),
    ]


@pytest.fixture(scope="module")
def expected(folder: Path, requests: list[RenderRequest]) -> dict[str, tuple[str, str]]:
    torch.set_num_threads(1)
    oracles = {one.request_id: monolith.render(folder, one, torch.float32, cross_timestep=True) for one in requests}
    return {
        name: (hashlib.sha256(one.frames.tobytes()).hexdigest(), hashlib.sha256(one.waveform.tobytes()).hexdigest())
        for name, one in oracles.items()
    }


def make_placement(
    checkpoint: Checkpoint, layout: str, devices: int, host_slots: int = 1, residency: str = "time_sliced"
) -> Placement:
    recipe = family_of(checkpoint).recipe
    nothing = {component: 0 for stage in recipe for component in stage.components}
    wishes = Wishes(layout=layout, device="cpu", devices=devices, threads=1, residency=residency, host_slots=host_slots)  # type: ignore[arg-type]
    return place(wishes, Inventory((), 2), BatchDemand(Models(recipe, nothing)))


def render(
    checkpoint: Checkpoint, placement: Placement, requests: list[RenderRequest], kind: str = "local"
) -> dict[str, RenderResult]:
    specs = [WorkerSpec(worker, checkpoint, "float32", Mp4Settings()) for worker in placement.workers]
    executor = LocalExecutor(specs) if kind == "local" else ray_executor.RayExecutor(specs)
    try:
        loop = BatchLoop(Scheduler(placement), executor)
        return {result.request.request_id: result for result in loop.render(requests)}
    finally:
        executor.shutdown()


def digests(results: dict[str, RenderResult]) -> dict[str, tuple[str, str]]:
    """sha256 of frames and sound, by clip."""
    found = {}
    for name, result in results.items():
        assert result.status == "done" and result.video is not None and result.video.sound is not None, result
        found[name] = (result.video.frames_sha256, result.video.sound.audio_sha256)
    return found


@pytest.mark.parametrize(("layout", "devices"), [("shared", 1), ("pinned", 3), ("pinned", 5), ("replicated", 2)])
def test_every_layout_gives_the_monoliths_frames_and_sound(checkpoint, requests, expected, layout: str, devices: int):
    results = render(checkpoint, make_placement(checkpoint, layout, devices), requests[::-1])
    assert digests(results) == expected


def test_mp4s_made_beside_the_device_are_equal(checkpoint, requests, expected):
    assert digests(render(checkpoint, make_placement(checkpoint, "shared", 1, host_slots=2), requests)) == expected


@pytest.mark.ray
def test_actors_that_run_all_stages_give_the_same(ray_cluster, checkpoint, requests, expected):
    """test_ltx2_layouts.py tests pinned ones."""
    shuffled = [requests[index] for index in (2, 0, 3, 1)]
    assert digests(render(checkpoint, make_placement(checkpoint, "replicated", 2), shuffled, "ray")) == expected


def test_each_component_is_loaded_once_whatever_the_number_of_clips(checkpoint, requests, expected, monkeypatch):
    loads: list[str] = []

    def counting(name: str, *rest: Any) -> torch.nn.Module:
        loads.append(name)
        return load_component(name, *rest)

    monkeypatch.setattr("ltx_dist.models.ltx2.load.load_component", counting)
    render(checkpoint, make_placement(checkpoint, "shared", 1, residency="resident"), requests)
    assert len(loads) == len(set(loads)) == 8


def test_no_worker_of_a_pinned_layout_holds_text_encoder_and_transformer(checkpoint):
    recipe = family_of(checkpoint).recipe
    for worker in make_placement(checkpoint, "pinned", 3).workers:
        held = {component for stage in worker.stages for component in recipe[stage].components}
        assert not {"text_encoder", "transformer"} <= held


def settings(folder: Path, **more: object) -> list[str]:
    pairs = SIZES | {"model.checkpoint": str(folder), "placement.threads": 1} | more
    return [f"--set={key}={json.dumps(value) if not isinstance(value, str) else value}" for key, value in pairs.items()]


def run(*arguments: object) -> None:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_checkpoint("2.5", tmp_path_factory.mktemp("tiny") / "2.5")


def test_a_folder_of_clips_with_sound_is_verified_and_rendered_once(distilled: Path, tmp_path: Path):
    """LTX-2.5 as it is published: distilled, in two passes."""
    prompts, out = tmp_path / "prompts.txt", tmp_path / "out"
    prompts.write_text("a robot\n")
    run("render", prompts, "-o", out, *settings(distilled))
    (sidecar,) = [path for path in out.glob("*.json") if path.stem not in ("run", "trace")]
    record = json.loads(sidecar.read_text())
    assert record["sampling_rate"] == 48000 and record["audio_channels"] == 2 and record["audio_samples"] > 30_000
    assert set(record["stages"]) == {"encode_text", "denoise", "refine", "decode", "encode_video"}
    assert record["request"]["second_pass"]["sigmas"] == [0.909375, 0.725, 0.421875]
    request = open_batch(str(prompts), config(distilled)).requests[0]
    oracle = monolith.render(distilled, request, torch.float32, cross_timestep=True)
    assert record["frames_sha256"] == hashlib.sha256(oracle.frames.tobytes()).hexdigest()
    assert record["audio_sha256"] == hashlib.sha256(oracle.waveform.tobytes()).hexdigest()
    run("verify", out)
    before = sidecar.read_bytes()
    run("render", prompts, "-o", out, *settings(distilled))
    assert sidecar.read_bytes() == before
    sidecar.unlink()
    run("render", prompts, "-o", out, *settings(distilled))
    assert json.loads(sidecar.read_text())["audio_sha256"] == record["audio_sha256"], "from the mp4's seal"
    run("verify", out)


def config(folder: Path) -> RenderConfig:
    return RenderConfig.model_validate(
        {
            "model": {"checkpoint": str(folder)},
            "placement": {"threads": 1},
            "defaults": {key.removeprefix("defaults."): value for key, value in SIZES.items()},
        }
    )
