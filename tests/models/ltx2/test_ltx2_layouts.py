"""Batches of every version in both precisions: pinned, in waves, streamed, and pinned on Ray actors.

Each gives the frames and the sound of diffusers' monolithic pipelines. The generator's state is in no result, so
test_ltx2_parity.py compares it stage by stage; here it travels from the first pass to the second. test_ltx2_render.py
adds LoRAs and other layouts, for 2.3 in float32.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import monolith_ltx2 as monolith
import numpy as np
import PIL.Image
import pytest
import tiny_ltx2 as tiny
import torch

from ltx_dist.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ltx_dist.cluster.ray_executor import RayExecutor
from ltx_dist.engine.loop import BatchLoop
from ltx_dist.models.family import family_of
from ltx_dist.pipeline.conditions import Condition
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import Mp4Settings
from ltx_dist.pipeline.worker import Placement
from ltx_dist.placement.fitting import BatchDemand, Models
from ltx_dist.placement.inventory import Inventory
from ltx_dist.placement.placement import Wishes, place
from ltx_dist.scheduling.scheduler import Scheduler
from ltx_dist.worker.local_executor import LocalExecutor
from ltx_dist.worker.spec import WorkerSpec

CASES = [(version, precision) for precision in ("float32", "bfloat16") for version in tiny.VERSIONS]
FLOWS = ("text", "first frame", "keyframes", "distilled, two passes", "guided, two passes")
RESIDENCIES = {"pinned": ["resident"] * 3, "waves": ["time_sliced"], "streamed": ["streamed"]}
"""Residency of each worker, by the way in which a batch is placed."""

Digests = dict[str, tuple[str, str]]
"""sha256 of frames and sound, by clip."""


@dataclass(frozen=True)
class Case:
    checkpoint: Checkpoint
    precision: str
    requests: list[RenderRequest]
    expected: Digests


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Condition:
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    noise = np.random.default_rng(0).integers(0, 255, (5, 8, 3), dtype=np.uint8)
    PIL.Image.fromarray(noise).resize((96, 64), PIL.Image.Resampling.BICUBIC).save(path)
    return Condition(str(path), hashlib.sha256(path.read_bytes()).hexdigest(), fit="stretch", crf=33)


def requests_of(picture: Condition) -> list[RenderRequest]:
    """One clip of each flow, for one batch."""
    keyframes = (replace(picture, fit="crop"), replace(picture, fit="crop", frame_index=1, strength=0.8))
    plain = tiny.make_request(num_frames=9, num_inference_steps=2)
    distilled = tiny.unguided(replace(plain, num_inference_steps=3))
    made = (
        plain,
        replace(plain, conditions=(picture,)),
        replace(distilled, conditions=keyframes),
        tiny.two_passes(distilled),
        tiny.two_passes(plain, audio="first"),
    )
    return [
        replace(one, request_id=name, seed=index) for index, (name, one) in enumerate(zip(FLOWS, made, strict=True))
    ]


@pytest.fixture(scope="module", params=CASES, ids=" ".join)
def case(request: pytest.FixtureRequest, picture: Condition, tmp_path_factory: pytest.TempPathFactory) -> Case:
    torch.set_num_threads(1)
    version, precision = request.param
    folder = tiny.make_checkpoint(version, tmp_path_factory.mktemp("tiny") / version)
    requests, dtype = requests_of(picture), getattr(torch, precision)
    oracles = {one.request_id: monolith.render(folder, one, dtype, version != "2.0") for one in requests}
    assert all(one.frames.std() > 1 and one.waveform.std() > 0.01 for one in oracles.values())
    expected = {name: (sha256(one.frames), sha256(one.waveform)) for name, one in oracles.items()}
    return Case(open_checkpoint(str(folder)), precision, requests, expected)


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def placed(checkpoint: Checkpoint, way: str) -> Placement:
    recipe = family_of(checkpoint).recipe
    nothing = {component: 0 for stage in recipe for component in stage.components}
    wishes = Wishes(
        layout="pinned" if way == "pinned" else "shared",
        device="cpu",
        devices=3 if way == "pinned" else 1,
        threads=1,
        residency="resident" if way == "pinned" else "time_sliced",
        host_slots=1,
    )
    found = place(wishes, Inventory((), 2), BatchDemand(Models(recipe, nothing)))
    if way != "streamed":
        return found
    streamed = {"residency": "streamed", "streamed": ("text_encoder", "transformer")}
    return replace(found, workers=tuple(replace(worker, **streamed) for worker in found.workers))


def render(
    case: Case, placement: Placement, executor_class: type[LocalExecutor] | type[RayExecutor] = LocalExecutor
) -> Digests:
    specs = [WorkerSpec(worker, case.checkpoint, case.precision, Mp4Settings()) for worker in placement.workers]
    executor = executor_class(specs)
    found: Digests = {}
    try:
        for result in BatchLoop(Scheduler(placement), executor).render(case.requests):
            assert result.status == "done" and result.video is not None and result.video.sound is not None, result
            found[result.request.request_id] = result.video.frames_sha256, result.video.sound.audio_sha256
    finally:
        executor.shutdown()
    return found


@pytest.mark.parametrize("way", RESIDENCIES)
def test_every_way_gives_the_monoliths_frames_and_sound(case: Case, way: str) -> None:
    placement = placed(case.checkpoint, way)
    assert [worker.residency for worker in placement.workers] == RESIDENCIES[way]
    if way == "pinned":
        assert not any({"encode_text", "denoise"} <= set(worker.stages) for worker in placement.workers)
    assert render(case, placement) == case.expected


@pytest.mark.ray
def test_actors_give_the_monoliths_frames_and_sound(case: Case, ray_cluster: None) -> None:
    assert render(case, placed(case.checkpoint, "pinned"), RayExecutor) == case.expected
