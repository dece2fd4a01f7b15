"""What a worker tries when memory runs out: one fallback after another, all recorded; then only this clip fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from builders import RECIPE, STAGES, D, E, V

from ltx_dist.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ltx_dist.engine.loop import BatchLoop
from ltx_dist.models.family import FAMILIES
from ltx_dist.pipeline.recipe import Component
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import UNTILED, DecodeTiling, Mp4Settings, Storage
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.scheduling.scheduler import Scheduler
from ltx_dist.store.publisher import Publisher
from ltx_dist.worker.local_executor import LocalExecutor
from ltx_dist.worker.oom_fallbacks import Fallback, fallbacks
from ltx_dist.worker.spec import WorkerSpec
from ltx_dist.worker.stage_call import StageCall
from ltx_dist.worker.stage_worker import StageWorker

REQUESTS = [
    RenderRequest(name, name, "", 64, 64, 9, 25.0, 1, 3.0, 0.0, 3, 0.05, 0.025, 32) for name in ("one", "two", "three")
]
NAMES = {
    E: [None, "cache emptied", "alone", "streamed"],
    D: [None, "cache emptied", "alone", "streamed", "streamed in float8"],
    V: [
        None, "cache emptied", "alone",
        "tiles of 512 px and 64 frames", "tiles of 256 px and 32 frames", "tiles of 256 px and 16 frames",
    ],
}  # fmt: skip


def components(stage: str) -> list[Component]:
    (family,) = (family for family in FAMILIES if family.name == "ltx_video")
    return [family.traits[name] for name in family.recipe[stage].components]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(str(tiny.save_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", "0.9.5")))


class Short(StageWorker):
    """A worker whose device runs out of memory in one stage of one clip, a number of times."""

    def __init__(self, spec: WorkerSpec, stage: str, request_id: str, times: int) -> None:
        super().__init__(spec)
        self._short, self._short_id, self._times = stage, request_id, times

    def _run_stage(self, call: StageCall, fallback: Fallback) -> Any:
        is_short = call.stage.name == self._short and self._short_id in call.names
        if is_short and self._times > 0:
            self._times -= 1
            raise torch.OutOfMemoryError("injected")
        return super()._run_stage(call, fallback)


def render(checkpoint: Checkpoint, stage: str, times: int, exact: bool = False) -> Iterator[Any]:
    worker = Worker("cpu:0", STAGES, "cpu", threads=1)
    spec = WorkerSpec(worker, checkpoint, "float32", Mp4Settings(), exact=exact)
    executor = LocalExecutor([spec], lambda spec: Short(spec, stage, "two", times))
    placement = Placement(RECIPE, "shared", (worker,), {D: 2, V: 2})
    return BatchLoop(Scheduler(placement), executor).render(REQUESTS)


def fallback_of(result: Any, stage: str) -> str | None:
    return next(c.report.fallback for c in reversed(result.completions) if c.assignment.stage == stage)


@pytest.mark.parametrize("stage", STAGES)
def test_each_fallback_is_taken_in_its_turn_and_recorded(checkpoint: Checkpoint, stage: str, tmp_path: Path) -> None:
    expected = {result.request.request_id: result for result in render(checkpoint, stage, 0)}
    for times, name in enumerate(NAMES[stage]):
        results = {result.request.request_id: result for result in render(checkpoint, stage, times)}
        assert {result.status for result in results.values()} == {"done"}
        assert [fallback_of(results[request_id], stage) for request_id in ("one", "two", "three")] == [None, name, None]
        for other in ("one", "three"):
            assert results[other].video.frames_sha256 == expected[other].video.frames_sha256
        same = results["two"].video.frames_sha256 == expected["two"].video.frames_sha256
        assert same == (name != "streamed in float8"), "a clip smaller than a tile is not cut, so only float8 shows"
        publisher = Publisher(tmp_path / str(times), {})
        publisher.publish(results["two"], "key")
        sidecar = json.loads((tmp_path / str(times) / "two.json").read_text())
        recorded = sidecar["stages"][str(stage)]
        assert recorded.get("after_no_memory") == name
        assert recorded.get("changes_pixels") == (None if name is None else "float8" in name or "tiles" in name)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("stage", STAGES)
def test_past_the_last_fallback_the_clip_fails_alone(checkpoint: Checkpoint, stage: str, exact: bool) -> None:
    num_fallbacks = len(fallbacks(components(stage), UNTILED, exact))
    results = {result.request.request_id: result for result in render(checkpoint, stage, num_fallbacks, exact)}
    assert {name: result.status for name, result in results.items()} == {
        "one": "done",
        "two": "failed",
        "three": "done",
    }
    assert "OutOfMemoryError: injected" in results["two"].error


@pytest.mark.parametrize(
    ("error", "retries"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_memory_that_is_short_while_weights_arrive_leads_to_the_fallbacks(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, error: RuntimeError, retries: bool
) -> None:
    worker = StageWorker(WorkerSpec(Worker("cpu:0", STAGES, "cpu", threads=1), checkpoint, "float32", Mp4Settings()))
    ready, errors = worker._components.ready, [error]

    def short(stage: str) -> Any:
        if errors:
            raise errors.pop()
        return ready(stage)

    monkeypatch.setattr(worker._components, "ready", short)
    conditioning, report = worker.run(E, [REQUESTS[0]])
    if retries:
        assert conditioning is not None and report.error is None and report.fallback == "cache emptied"
    else:
        assert conditioning is None and report.error == f"RuntimeError: {error}"


@pytest.mark.parametrize("stage", STAGES)
def test_the_list_of_fallbacks(stage: str) -> None:
    assert [fallback.name for fallback in fallbacks(components(stage), UNTILED, exact=False)] == NAMES[stage]
    exact = [fallback.name for fallback in fallbacks(components(stage), UNTILED, exact=True)]
    assert exact == [name for name in NAMES[stage] if name is None or not ("tiles" in name or "float8" in name)]


def test_a_quantised_text_encoder_is_not_streamed(checkpoint: Checkpoint) -> None:
    """Its layers hold more than tensors, so they cannot be copied back and forth."""
    for family in FAMILIES:
        traits, stage = family.traits_in(Storage(text_encoder="int8")), family.recipe["encode_text"]
        names = [one.name for one in fallbacks([traits[name] for name in stage.components], UNTILED, exact=False)]
        assert names == [None, "cache emptied", "alone"], family.name
        assert traits["transformer"] == family.traits["transformer"]


def test_a_transformer_that_is_in_float8_as_planned_does_not_fall_back_to_it() -> None:
    """The same attempt again would be in vain, and recorded as one that changed the pixels."""
    for family in FAMILIES:
        traits = family.traits_in(Storage(transformer="float8"))
        for stage in ("denoise", "refine"):
            components = [traits[name] for name in family.recipe[stage].components]
            names = [one.name for one in fallbacks(components, UNTILED, exact=False)]
            assert names == [None, "cache emptied", "alone", "streamed"], (family.name, stage)


def test_each_attempt_is_seen_in_the_state_of_the_worker(checkpoint: Checkpoint) -> None:
    """So that steps which are made again count as progress."""
    begun: list[tuple[int, int]] = []

    class Seen(Short):
        def _run_stage(self, call: StageCall, fallback: Fallback) -> Any:
            if call.stage.name == D:
                begun.append((self.state().attempt, self.state().step))
                self._on_step(call)(3)
            return super()._run_stage(call, fallback)

    worker = Worker("cpu:0", STAGES, "cpu", threads=1)
    seen = Seen(WorkerSpec(worker, checkpoint, "float32", Mp4Settings()), D, "one", 2)
    conditioning, _ = seen.run(E, REQUESTS[:1])
    _, report = seen.run(D, REQUESTS[:1], conditioning)
    assert report.fallback == "alone" and begun == [(0, 0), (1, 0), (2, 0)]
    assert seen.state().attempt == 0


def test_only_smaller_tiles_than_those_planned_are_tried() -> None:
    names = [fallback.name for fallback in fallbacks(components(V), DecodeTiling(384, 48), exact=False)]
    assert names[3:] == ["tiles of 256 px and 32 frames", "tiles of 256 px and 16 frames"]
    assert len(fallbacks(components(V), DecodeTiling(256, 16), exact=False)) == 3
