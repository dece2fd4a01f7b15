"""The stage split gives the bits of diffusers' monolithic pipeline: latents and frames, in every layout and order.

Equality holds for equal weights, settings, device, torch build and number of threads; docs/decisions.md says what
changes with the number of threads.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from builders import RECIPE, M
from oracle import make_request, render_monolithic, render_split

from ltx_dist.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ltx_dist.cluster import ray_executor
from ltx_dist.engine.loop import BatchLoop
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import Mp4Settings, Storage
from ltx_dist.pipeline.work import RenderResult
from ltx_dist.pipeline.worker import Placement
from ltx_dist.placement.fitting import BatchDemand, Models
from ltx_dist.placement.inventory import Inventory
from ltx_dist.placement.placement import Wishes, place
from ltx_dist.scheduling.scheduler import Scheduler
from ltx_dist.worker.local_executor import LocalExecutor
from ltx_dist.worker.spec import WorkerSpec

CHECKPOINTS = [
    ("0.9.0", "LTXPipeline"),
    ("0.9.1", "LTXPipeline"),
    ("0.9.5", "LTXPipeline"),
    ("0.9.5", "LTXConditionPipeline"),
]
NO_WEIGHTS = BatchDemand(Models(RECIPE, {"text_encoder": 0, "transformer": 0, "vae": 0}))


REQUESTS = [
    make_request("guided"),
    make_request("unguided", guidance_scale=1.0, seed=8),
    make_request("rescaled", guidance_rescale=0.7, seed=9, frame_rate=24.0),
    make_request("wide", width=128, height=32, num_frames=17, seed=10, decode_noise_scale=None),
    make_request(
        "long-prompt", prompt="word " * 40, negative_prompt="", num_inference_steps=5, max_sequence_length=128
    ),
]


@pytest.fixture(scope="module", params=CHECKPOINTS, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    version, pipeline_class = request.param
    folder = tiny.save_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", version, pipeline_class)
    return open_checkpoint(str(folder))


@pytest.fixture(scope="module")
def one_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(str(tiny.save_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", "0.9.1")))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.request_id)
def test_the_split_equals_the_monolithic_pipeline(checkpoint: Checkpoint, request_: RenderRequest):
    expected = render_monolithic(checkpoint, request_)
    latents, frames = render_split(checkpoint, request_, torch.float32)
    assert torch.equal(latents.latents, expected.latents)
    assert np.array_equal(frames, expected.frames)
    assert frames.std() > 1, "the frames are not flat, so equality means something"


def test_the_split_equals_the_monolithic_pipeline_in_bfloat16(checkpoint: Checkpoint):
    expected = render_monolithic(checkpoint, REQUESTS[0], torch.bfloat16)
    latents, frames = render_split(checkpoint, REQUESTS[0], torch.bfloat16)
    assert torch.equal(latents.latents, expected.latents.float())
    assert np.array_equal(frames, expected.frames)


def test_a_vae_of_its_own_precision_is_that_of_the_monolithic_pipeline(checkpoint: Checkpoint):
    expected = render_monolithic(checkpoint, REQUESTS[0], torch.bfloat16, vae_dtype=torch.float32)
    latents, frames = render_split(checkpoint, REQUESTS[0], torch.bfloat16, Storage(vae="float32"))
    assert torch.equal(latents.latents, expected.latents.float())
    assert np.array_equal(frames, expected.frames)
    _, in_bfloat16 = render_split(checkpoint, REQUESTS[0], torch.bfloat16)
    assert not np.array_equal(frames, in_bfloat16)


def test_the_noise_of_every_step_is_the_clips_own(tmp_path: Path):
    """`stochastic_sampling`, as 0.9.6-distilled is published with: the same latents whatever was rendered before."""
    folder = tiny.save_checkpoint(tmp_path / "checkpoint", "0.9.5")
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"stochastic_sampling": True}))
    checkpoint = open_checkpoint(str(folder))
    expected = render_monolithic(checkpoint, REQUESTS[0])
    for _ in range(2):
        latents, _ = render_split(checkpoint, REQUESTS[0], torch.float32)
        assert torch.equal(latents.latents, expected.latents)
        torch.rand(7)  # what another clip may have drawn


def make_placement(layout: str, devices: int, host_slots: int = 1) -> Placement:
    wishes = Wishes(
        layout=layout, device="cpu", devices=devices, threads=1, residency="time_sliced", host_slots=host_slots
    )
    return place(wishes, Inventory((), 2), NO_WEIGHTS)


def render_all(
    checkpoint: Checkpoint, placement: Placement, requests: list[RenderRequest], kind: str
) -> dict[str, RenderResult]:
    specs = [WorkerSpec(w, checkpoint, "float32", Mp4Settings()) for w in placement.workers]
    executor = LocalExecutor(specs) if kind == "local" else ray_executor.RayExecutor(specs)
    try:
        renderer = BatchLoop(Scheduler(placement), executor)
        return {result.request.request_id: result for result in renderer.render(requests)}
    finally:
        executor.shutdown()


def digests(results: dict[str, RenderResult]) -> dict[str, tuple[str | None, ...]]:
    """Latents, frames and mp4 of each request."""
    assert {result.status for result in results.values()} == {"done"}, results
    return {
        request_id: (
            result.completions[1].report.latents_sha256[0],
            result.video.frames_sha256,
            result.video.mp4_sha256,
        )
        for request_id, result in results.items()
    }


@pytest.fixture(scope="module")
def expected_digests(one_checkpoint: Checkpoint) -> dict[str, tuple[str | None, ...]]:
    """Results of the simplest path, which the tests above compare with diffusers."""
    torch.set_num_threads(1)
    return digests(render_all(one_checkpoint, make_placement("shared", 1), REQUESTS, "local"))


def test_the_plainest_path_has_diffusers_latents_and_frames(one_checkpoint, expected_digests):
    import hashlib

    for request in REQUESTS:
        oracle = render_monolithic(one_checkpoint, request)
        latents_sha256, frames_sha256, _ = expected_digests[request.request_id]
        assert latents_sha256 == hashlib.sha256(oracle.latents.contiguous().numpy()).hexdigest()
        assert frames_sha256 == hashlib.sha256(oracle.frames.tobytes()).hexdigest()


LAYOUTS = [("shared", 1), ("pinned", 2), ("pinned", 3), ("replicated", 2)]


@pytest.mark.parametrize(("layout", "devices"), LAYOUTS)
def test_local_layouts_and_orders_are_equal(one_checkpoint, expected_digests, layout, devices):
    backwards = render_all(one_checkpoint, make_placement(layout, devices), REQUESTS[::-1], "local")
    assert digests(backwards) == expected_digests


@pytest.mark.ray
@pytest.mark.parametrize(("layout", "devices"), LAYOUTS)
def test_ray_layouts_and_orders_are_equal(ray_cluster, one_checkpoint, expected_digests, layout, devices):
    shuffled = [REQUESTS[index] for index in (3, 0, 4, 2, 1)]
    assert digests(render_all(one_checkpoint, make_placement(layout, devices), shuffled, "ray")) == expected_digests


def test_mp4s_made_beside_the_device_are_equal(one_checkpoint, expected_digests):
    results = render_all(one_checkpoint, make_placement("shared", 1, host_slots=2), REQUESTS, "local")
    assert digests(results) == expected_digests
    assert {result.completions[-1].assignment.stage for result in results.values()} == {M}


@pytest.mark.ray
def test_mp4s_made_beside_the_devices_of_actors_are_equal(ray_cluster, one_checkpoint, expected_digests):
    placement = make_placement("pinned", 3, host_slots=2)
    assert digests(render_all(one_checkpoint, placement, REQUESTS, "ray")) == expected_digests
