"""After a shortage, a worker keeps using what worked, reads no weights again, and the scheduler knows this."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import tiny
import torch
from builders import RECIPE, STAGES, D, E, V

from ltx_dist.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ltx_dist.engine.executor import WorkerStartError
from ltx_dist.engine.loop import BatchLoop
from ltx_dist.models.family import Family
from ltx_dist.models.ltx_video import decode
from ltx_dist.models.ltx_video.tiling import decode_in_tiles
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import Mp4Settings
from ltx_dist.pipeline.work import Completion, RenderResult
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.scheduling.scheduler import Scheduler
from ltx_dist.store.sidecar import sidecar_of
from ltx_dist.worker import stage_worker
from ltx_dist.worker.local_executor import LocalExecutor
from ltx_dist.worker.oom_fallbacks import Fallback
from ltx_dist.worker.spec import WorkerSpec
from ltx_dist.worker.stage_call import StageCall
from ltx_dist.worker.stage_worker import StageWorker

RESIDENT = Worker("cpu:0", STAGES, "cpu", threads=1)
REQUESTS = [
    RenderRequest(f"clip {n}", f"clip {n}", "", 64, 64, 9, 25.0, 1, 3.0, 0.0, n, 0.05, 0.025, 32) for n in range(4)
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(str(tiny.save_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", "0.9.5")))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the weights of each component are read."""
    counted: Counter[str] = Counter()
    load = Family.load_component

    def counting(self: Family, name: str, *arguments: Any) -> torch.nn.Module:
        counted[name] += 1
        return load(self, name, *arguments)

    monkeypatch.setattr(Family, "load_component", counting)
    return counted


class Small(StageWorker):
    """A worker whose device has room for one component, or for what `fits` allows, while a stage computes."""

    fits: Callable[[tuple[str, ...]], bool] = staticmethod(lambda names: len(names) < 2)
    stage = V

    def _run_stage(self, call: StageCall, fallback: Fallback) -> Any:
        self._ready(call.stage)
        if call.stage.name == self.stage and not self.fits(self._components.on_device()):
            raise torch.OutOfMemoryError("injected")
        return super()._run_stage(call, fallback)


def render(
    checkpoint: Checkpoint, worker: Worker, worker_class: Any = Small
) -> tuple[list[RenderResult], list[str], Scheduler]:
    spec = WorkerSpec(worker, checkpoint, "float32", Mp4Settings())
    scheduler = Scheduler(Placement(RECIPE, "shared", (worker,), {D: 2, V: 2}))
    notices: list[str] = []
    loop = BatchLoop(
        scheduler, LocalExecutor([spec], worker_class), on_notice=notices.append, bounds=lambda: {D: 4, V: 4}
    )
    return list(loop.render(REQUESTS)), notices, scheduler


def taken(results: list[RenderResult], stage: str) -> list[str | None]:
    ends = {
        r.request.request_id: [c.report.fallback for c in r.completions if c.assignment.stage == stage] for r in results
    }
    return [ends[request.request_id][-1] for request in REQUESTS]


def test_a_stage_that_needs_the_device_to_itself_has_it_from_then_on(
    checkpoint: Checkpoint, reads: Counter[str]
) -> None:
    expected, _, _ = render(checkpoint, RESIDENT, StageWorker)
    reads.clear()
    results, notices, scheduler = render(checkpoint, RESIDENT)
    assert [r.status for r in results] == ["done"] * 4
    assert taken(results, V) == ["alone", None, None, None], "what worked stays"
    assert reads == {"text_encoder": 1, "transformer": 1, "vae": 1}, "and nothing is read again"
    assert [n for n in notices if "take turns" in n] == [
        "worker cpu:0: decode needs the device to itself; from now on the components take turns on the device"
    ]
    assert scheduler.worker("cpu:0").residency == "time_sliced", "it is scheduled in waves"
    frames = {r.request.request_id: r.video.frames_sha256 for r in results if r.video}
    assert frames == {r.request.request_id: r.video.frames_sha256 for r in expected if r.video}


def test_what_was_fetched_for_the_next_turn_leaves_and_is_not_fetched_again(
    checkpoint: Checkpoint, reads: Counter[str]
) -> None:
    worker = replace(RESIDENT, residency="time_sliced", capacity=10**12, peak_bytes=0)
    results, notices, _ = render(checkpoint, worker)
    assert [r.status for r in results] == ["done"] * 4
    assert sorted(filter(None, taken(results, V))) == ["cache emptied"]
    assert reads == {"text_encoder": 1, "transformer": 1, "vae": 1} and not notices


def test_a_stage_that_gets_the_device_to_itself_shares_it_with_no_next_turn(checkpoint: Checkpoint) -> None:
    """However much room the plan sees beside it: the plan was wrong, and the next fallback would change the pixels."""
    results, _, _ = render(checkpoint, replace(RESIDENT, capacity=10**12, peak_bytes=0))
    assert [r.status for r in results] == ["done"] * 4
    assert taken(results, V) == ["alone", None, None, None]


def test_without_room_for_host_copies_weights_are_read_once_per_turn(
    checkpoint: Checkpoint, reads: Counter[str]
) -> None:
    results, _, _ = render(checkpoint, replace(RESIDENT, keeps_host_copy=False))
    assert [r.status for r in results] == ["done"] * 4
    assert max(reads.values()) <= 1 + len(REQUESTS)


def test_a_device_without_room_at_the_start_begins_with_turns(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, failures = Family.load_component, ["transformer"]

    def short(self: Family, name: str, *arguments: Any) -> torch.nn.Module:
        if name in failures:
            failures.remove(name)
            raise torch.AcceleratorError("CUDA error: out of memory")
        return load(self, name, *arguments)

    monkeypatch.setattr(Family, "load_component", short)
    results, notices, scheduler = render(checkpoint, RESIDENT, StageWorker)
    assert [r.status for r in results] == ["done"] * 4
    assert notices[0].startswith("worker cpu:0: the device cannot hold all components; from now on")
    assert scheduler.worker("cpu:0").residency == "time_sliced"
    failures[:] = ["transformer"] * 2
    with pytest.raises(WorkerStartError, match="worker cpu:0: AcceleratorError: CUDA error: out of memory"):
        StageWorker(WorkerSpec(RESIDENT, checkpoint, "float32", Mp4Settings()))


def test_what_clips_of_a_shape_needed_twice_is_what_the_next_begins_with(
    checkpoint: Checkpoint, reads: Counter[str]
) -> None:
    attempts: list[tuple[str, str | None]] = []

    class NeedsFloat8(StageWorker):
        def _run_stage(self, call: StageCall, fallback: Fallback) -> Any:
            if call.stage.name == D:
                attempts.append((call.names[0], fallback.name))
                if not fallback.float8:
                    raise torch.OutOfMemoryError("injected")
            return super()._run_stage(call, fallback)

    results, _, _ = render(checkpoint, RESIDENT, NeedsFloat8)
    assert taken(results, D) == ["streamed in float8"] * 4
    per_clip = Counter(name for name, _ in attempts)
    assert [per_clip[request.request_id] for request in REQUESTS] == [5, 5, 1, 1]
    assert reads["transformer"] <= 5, "the transformer stays in 8 bits while clips of that shape come"


def test_a_component_is_evicted_before_it_is_forgotten(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = StageWorker(WorkerSpec(replace(RESIDENT, residency="time_sliced"), checkpoint, "float32", Mp4Settings()))
    components = worker._components
    components.ready(RECIPE[E])
    mover = components._movers["text_encoder"]
    assert mover.is_resident
    components._drop("text_encoder")
    assert not mover.is_resident


def test_an_algorithm_that_a_library_replaced_for_want_of_memory_is_recorded_from_then_on(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cuDNN catches the allocator's error, and keeps another algorithm that it finds, so nothing fails."""
    refused, decoded = [0], []

    def with_less_memory(*arguments: Any) -> Any:
        decoded.append(1)
        refused[0] += len(decoded) == 2
        return decode_in_tiles(*arguments)

    monkeypatch.setattr(stage_worker, "refused_allocations", lambda device: refused[0])
    monkeypatch.setattr(decode, "decode_in_tiles", with_less_memory)
    results, notices, _ = render(checkpoint, RESIDENT, StageWorker)
    reports = [c.report for c in sorted_by_end(results) if c.assignment.stage == V]
    assert [report.memory_refused for report in reports] == [False, True, True, True]
    assert len([line for line in notices if "decode: a library was refused memory" in line]) == 1
    assert not any(c.report.memory_refused for r in results for c in r.completions if c.assignment.stage != V)
    last = next(result for result in results if any(c.report is reports[-1] for c in result.completions))
    stages = sidecar_of(last, "key", {})["stages"]
    assert stages[V]["memory_refused"] is True and "memory_refused" not in stages[D]
    assert stages[V]["made_on"] == "cpu, torch threads: 1"


def sorted_by_end(results: list[RenderResult]) -> list[Completion]:
    return sorted((c for r in results for c in r.completions), key=lambda c: c.finished)
