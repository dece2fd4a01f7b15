"""StageWorker with real tiny models: what it loads, what it reports, and how components take turns on a device."""

from __future__ import annotations

import gc
import json
import shutil
import sys
import time
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from builders import STAGES, D, E, M, V

from ltx_dist.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ltx_dist.engine.executor import WorkerStartError
from ltx_dist.pipeline.payloads import EncodedVideo, Latents
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import Mp4Settings
from ltx_dist.pipeline.worker import Residency, Worker
from ltx_dist.worker import stage_worker
from ltx_dist.worker.oom_fallbacks import Fallback
from ltx_dist.worker.spec import WorkerSpec
from ltx_dist.worker.stage_call import StageCall
from ltx_dist.worker.stage_worker import StageWorker

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from shared_passes import in_passes  # noqa: E402

REQUEST = RenderRequest("clip", "a prompt", "", 64, 64, 9, 25.0, 2, 3.0, 0.0, 3, 0.05, 0.025, 32)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(str(tiny.save_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", "0.9.5")))


def make_worker(
    checkpoint: Checkpoint,
    stages: tuple[str, ...] = STAGES,
    residency: Residency = "resident",
    host_slots: int = 1,
) -> StageWorker:
    worker = Worker("cpu:0", stages, "cpu", residency=residency, threads=1, host_slots=host_slots)
    return StageWorker(WorkerSpec(worker, checkpoint, "float32", Mp4Settings()))


def test_a_request_goes_through_the_stages(checkpoint: Checkpoint):
    worker = make_worker(checkpoint)
    conditioning, report = worker.run(E, [REQUEST])
    assert report.error is None and report.seconds > 0
    latents, report = worker.run(D, [REQUEST], conditioning)
    assert isinstance(latents, Latents) and latents.latents.shape == (1, tiny.LATENT_CHANNELS, 2, 2, 2)
    assert [len(digest) for digest in report.latents_sha256] == [64]
    nothing, report = worker.run(V, [REQUEST], latents)
    assert nothing is None and report.error is None, "frames stay in the worker, and its device is free"
    video, report = worker.run(M, [REQUEST], nothing)
    assert report.error is None
    assert isinstance(video, EncodedVideo) and (video.num_frames, video.height, video.width) == (9, 64, 64)
    assert report.peak_bytes is None, "a CPU does not count"


def test_a_stage_that_raised_leaves_nothing_behind(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch):
    """Without the garbage collector, which may not run for long: on a GPU, the next clip needs this memory."""
    held: list[weakref.ref[torch.Tensor]] = []

    class Fails(StageWorker):
        def _run_stage(self, call: StageCall, fallback: Fallback) -> Any:
            activations = torch.ones(8)
            held.append(weakref.ref(activations))
            raise ValueError("not finite")

    worker = Fails(WorkerSpec(Worker("cpu:0", (E,), "cpu", threads=1), checkpoint, "float32", Mp4Settings()))
    monkeypatch.setattr(stage_worker.LOG, "exception", lambda *_: None)  # pytest keeps records, with their tracebacks
    gc.disable()
    try:
        nothing, report = worker.run(E, [REQUEST])
        assert nothing is None and report.error == "ValueError: not finite"
        assert [tensor() for tensor in held] == [None]
    finally:
        gc.enable()


def test_the_benchmark_of_shared_passes_gets_the_latents_of_clips_alone(checkpoint: Checkpoint):
    worker = make_worker(checkpoint, (E, D))
    requests = [replace(REQUEST, request_id=f"{seed}", seed=seed) for seed in range(2)]
    (seconds, alone), (_, shared) = (in_passes(worker, requests, size, time.thread_time) for size in (1, 2))
    assert seconds.keys() == {E, D} and len(alone) == 2
    torch.testing.assert_close(shared, alone, rtol=1e-4, atol=1e-4)


def test_only_the_components_of_its_stages_are_loaded(checkpoint: Checkpoint, tmp_path: Path):
    # A checkpoint with links to everything but the transformer's weights, which a decode worker does not need.
    for path in checkpoint.path.rglob("*"):
        target = tmp_path / path.relative_to(checkpoint.path)
        if path.is_dir():
            target.mkdir(parents=True)
        elif "transformer" not in str(path.relative_to(checkpoint.path)):
            target.symlink_to(path)
    partial = replace(checkpoint, path=tmp_path)
    make_worker(partial, (E, V))
    with pytest.raises(WorkerStartError, match="^worker cpu:0: transformer of .*config.json.*$"):
        make_worker(partial, (D,))


@pytest.mark.parametrize(
    ("component", "key", "stage"),
    [("text_encoder", "num_layers", E), ("transformer", "num_layers", D)],
)
@pytest.mark.parametrize("change", [1, -1], ids=["missing", "unexpected"])
def test_weights_that_are_not_those_of_the_config_are_refused(
    checkpoint: Checkpoint, tmp_path: Path, component: str, key: str, stage: str, change: int
):
    folder = tmp_path / "checkpoint"
    shutil.copytree(checkpoint.path, folder)
    config = json.loads((folder / component / "config.json").read_text())
    config[key] += change
    (folder / component / "config.json").write_text(json.dumps(config))
    with pytest.raises(WorkerStartError, match=f"^worker cpu:0: {component} of .*"):
        make_worker(open_checkpoint(str(folder)), (stage,))


def test_an_error_in_a_stage_becomes_a_report(checkpoint: Checkpoint):
    worker = make_worker(checkpoint, (V,))
    broken = Latents(torch.zeros(1, 3, 2, 2, 2), torch.Generator().get_state(), "float32")
    output, report = worker.run(V, [REQUEST], broken)
    assert output is None and report.error.startswith("RuntimeError: ")
    assert worker.state().stage is None, "the worker is free again"


def test_what_goes_wrong_beside_the_device_is_told_by_the_stage_it_went_wrong_in(checkpoint: Checkpoint):
    worker = make_worker(checkpoint, (V,), host_slots=1)
    broken = Latents(torch.zeros(1, 3, 2, 2, 2), torch.Generator().get_state(), "float32")
    _, report = worker.run(V, [REQUEST], broken)
    assert report.error.startswith("RuntimeError: "), "decoding itself"
    short = Latents(
        torch.zeros(1, tiny.LATENT_CHANNELS, 1, 2, 2), torch.Generator("cpu").manual_seed(0).get_state(), "float32"
    )
    _, report = worker.run(V, [REQUEST], short)
    assert report.error is None
    video, report = worker.run(M, [REQUEST], None)
    assert video is None and "1 frames of 9" in report.error


def test_states_tell_of_steps(checkpoint: Checkpoint):
    worker = make_worker(checkpoint, (E, D))
    seen = []
    on_step = worker._on_step(StageCall(worker._recipe[D], [REQUEST], [{}]))
    for step in (1, 2):
        on_step(step)
        seen.append((worker.state().stage, worker.state().step, worker.state().num_steps))
    assert seen == [(D, 1, 2), (D, 2, 2)]
