"""The stage split gives the bits of diffusers' monolithic pipeline: latents and frames, in every layout and order.

Equality holds for equal weights, settings, device, torch build and number of threads; docs/decisions.md has what
changes with the number of threads.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import diffusers
import numpy as np
import pytest
import tiny
import torch

from ltx_dist.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ltx_dist.checkpoints.digests import checkpoint_digest
from ltx_dist.config import OutputConfig
from ltx_dist.execution import ray_executor
from ltx_dist.execution.local_executor import LocalExecutor
from ltx_dist.execution.renderer import Renderer
from ltx_dist.execution.worker import WorkerSpec
from ltx_dist.scheduling.fitting import Demand, Models
from ltx_dist.scheduling.inventory import Inventory
from ltx_dist.scheduling.placement import Placement, Wishes, place
from ltx_dist.scheduling.scheduler import Scheduler
from ltx_dist.stages.denoiser import Denoiser
from ltx_dist.stages.text_encoder import TextEncoder
from ltx_dist.stages.video_decoder import VideoDecoder
from ltx_dist.types import PLAIN, Latents, RenderRequest, RenderResult, Stage, Storage

CHECKPOINTS = [
    ("0.9.0", "LTXPipeline"),
    ("0.9.1", "LTXPipeline"),
    ("0.9.5", "LTXPipeline"),
    ("0.9.5", "LTXConditionPipeline"),
]
NO_WEIGHTS = Demand(Models({"text_encoder": 0, "transformer": 0, "vae": 0}))


@dataclass(frozen=True)
class Oracle:
    """What the monolithic pipeline made of a request: (1, C, F, H, W) latents and (T, H, W, 3) uint8 frames."""

    latents: torch.Tensor
    frames: np.ndarray


def make_request(request_id: str, **changes: object) -> RenderRequest:
    settings = {
        "request_id": request_id, "prompt": f"a clip called {request_id}", "negative_prompt": "blurry", "height": 64,
        "width": 96, "num_frames": 9, "frame_rate": 25.0, "num_inference_steps": 3, "guidance_scale": 3.0,
        "guidance_rescale": 0.0, "seed": 7, "decode_timestep": 0.05, "decode_noise_scale": 0.025,
        "max_sequence_length": 64,
    }  # fmt: skip
    return RenderRequest(**(settings | changes))


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


def render_monolithic(
    checkpoint: Checkpoint,
    request: RenderRequest,
    dtype: torch.dtype = torch.float32,
    vae_dtype: torch.dtype | None = None,
) -> Oracle:
    """diffusers' own call, once for the latents and once for the frames, from the same seed."""
    pipeline = getattr(diffusers, checkpoint.pipeline_class).from_pretrained(checkpoint.path, dtype=dtype)
    if vae_dtype is not None:
        # As stored, and not as `pipeline.vae.to(vae_dtype)`, which would first have rounded it to `dtype`.
        pipeline.vae = diffusers.AutoencoderKLLTXVideo.from_pretrained(checkpoint.path / "vae", dtype=vae_dtype)
        # `LTXConditionPipeline` does not cast to the VAE's dtype before it decodes, and fails.
        decode = pipeline.vae.decode
        pipeline.vae.decode = lambda latents, *rest, **named: decode(latents.to(vae_dtype), *rest, **named)
    pipeline.set_progress_bar_config(disable=True)
    latents = _call(pipeline, request, "latent")
    if latents.ndim == 3:
        latents = pipeline._unpack_latents(
            latents,
            (request.num_frames - 1) // pipeline.vae_temporal_compression_ratio + 1,
            request.height // pipeline.vae_spatial_compression_ratio,
            request.width // pipeline.vae_spatial_compression_ratio,
        )
    images = _call(pipeline, request, "pil")[0]
    return Oracle(latents, np.stack([np.asarray(image) for image in images]))


def _call(pipeline: diffusers.DiffusionPipeline, request: RenderRequest, output_type: str):
    torch.manual_seed(request.seed)  # 0.9.1's decoder draws from the global generator
    return pipeline(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        height=request.height,
        width=request.width,
        num_frames=request.num_frames,
        frame_rate=request.frame_rate,
        num_inference_steps=request.num_inference_steps,
        timesteps=request.timesteps,
        guidance_scale=request.guidance_scale,
        guidance_rescale=request.guidance_rescale,
        generator=torch.Generator("cpu").manual_seed(request.seed),
        decode_timestep=request.decode_timestep,
        decode_noise_scale=request.decode_noise_scale,
        max_sequence_length=request.max_sequence_length,
        output_type=output_type,
        return_dict=False,
    )[0]


def render_split(
    checkpoint: Checkpoint, request: RenderRequest, dtype: torch.dtype, storage: Storage = PLAIN
) -> tuple[Latents, np.ndarray]:
    steps: list[int] = []
    with torch.inference_mode():
        conditioning = TextEncoder(checkpoint, dtype, "cpu").encode([request])[0]
        latents = Denoiser(checkpoint, dtype, "cpu").denoise([request], [conditioning], steps.append)[0]
        frames = np.stack(list(VideoDecoder(checkpoint, dtype, "cpu", storage).decode(request, latents)))
    assert steps == list(range(1, request.num_inference_steps + 1))
    return latents, frames


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


def make_placement(layout: str, devices: int, video_slots: int = 0) -> Placement:
    wishes = Wishes(
        layout=layout, device="cpu", devices=devices, threads=1, residency="time_sliced", video_slots=video_slots
    )
    return place(wishes, Inventory((), 2), NO_WEIGHTS)


def render_all(
    checkpoint: Checkpoint, placement: Placement, requests: list[RenderRequest], kind: str
) -> dict[str, RenderResult]:
    digest = checkpoint_digest(checkpoint)
    specs = [WorkerSpec(w, checkpoint, digest, "float32", OutputConfig()) for w in placement.workers]
    executor = LocalExecutor(specs) if kind == "local" else ray_executor.RayExecutor(specs)
    try:
        renderer = Renderer(Scheduler(placement), executor)
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
    """From the plainest path there is, itself equal to diffusers by the tests above."""
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
    results = render_all(one_checkpoint, make_placement("shared", 1, video_slots=2), REQUESTS, "local")
    assert digests(results) == expected_digests
    assert {result.completions[-1].assignment.stage for result in results.values()} == {Stage.ENCODE_VIDEO}


@pytest.mark.ray
def test_mp4s_made_beside_the_devices_of_actors_are_equal(ray_cluster, one_checkpoint, expected_digests):
    placement = make_placement("pinned", 3, video_slots=2)
    assert digests(render_all(one_checkpoint, placement, REQUESTS, "ray")) == expected_digests
