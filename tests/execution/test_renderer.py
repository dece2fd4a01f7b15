"""The loop against an executor on a virtual clock: overlap, isolation of failures, one result for each request."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import pytest

from ltx_dist.execution.renderer import Renderer, WorkersLostError
from ltx_dist.scheduling.placement import Placement, Worker
from ltx_dist.scheduling.scheduler import Scheduler
from ltx_dist.scheduling.timeline import makespan, overlaps
from ltx_dist.types import (
    STAGES,
    Assignment,
    Completion,
    EncodedVideo,
    Failure,
    RenderRequest,
    Stage,
    StageOutput,
    StageReport,
    WorkerState,
)

SECONDS = {Stage.ENCODE_TEXT: 1.0, Stage.DENOISE: 10.0, Stage.DECODE: 3.0}
VIDEO = EncodedVideo(b"mp4", 9, 64, 64, "frames", "mp4")


class FakeExecutor:
    """Ends the assignment that ends first on a virtual clock; `ending` decides how."""

    def __init__(self, ending: Callable[[Assignment], str] = lambda assignment: "well") -> None:
        self._ending = ending
        self._running: list[tuple[float, int, Assignment, float]] = []
        self._now = 0.0
        self._count = 0
        self.released: list[str] = []

    def submit(self, assignment: Assignment, request: RenderRequest) -> None:
        self._count += 1
        heapq.heappush(self._running, (self._now + SECONDS[assignment.stage], self._count, assignment, self._now))

    def wait(self, timeout: float) -> list[Completion]:
        self._now, _, assignment, started = heapq.heappop(self._running)
        ending = self._ending(assignment)
        report = StageReport(self._now - started, error=None if ending == "well" else "RuntimeError: boom")
        video = VIDEO if ending == "well" and assignment.stage is Stage.DECODE else None
        failure = {"well": None, "failed": Failure.ERROR, "lost": Failure.CRASH, "input lost": Failure.INPUT_LOST}[
            ending
        ]
        return [Completion(assignment, started, self._now, report, failure, video)]

    def fetcher(self, request_id: str) -> Callable[[], StageOutput]:
        raise AssertionError("nothing is kept in these tests")

    def restore(self, request_id: str, output: StageOutput) -> None:
        raise AssertionError("nothing is resumed in these tests")

    def release(self, request_id: str) -> None:
        self.released.append(request_id)

    def worker_states(self) -> list[WorkerState]:
        return []

    def shutdown(self) -> None: ...


def make_request(request_id: str) -> RenderRequest:
    return RenderRequest(request_id, "p", "", 64, 64, 9, 25.0, 8, 3.0, 0.0, 0, 0.05, 0.025, 128)


REQUESTS = [make_request(name) for name in "abcd"]
PINNED = Placement(
    "pinned",
    tuple(Worker(f"w{i}", (stage,), "cpu", i) for i, stage in enumerate(STAGES)),
    {Stage.DENOISE: 2, Stage.DECODE: 2},
)


def test_encode_and_decode_run_inside_the_denoise_of_other_clips():
    renderer = Renderer(Scheduler(PINNED), FakeExecutor())
    results = list(renderer.render(REQUESTS))
    assert [result.request.request_id for result in results] == ["a", "b", "c", "d"]
    assert all(result.status == "done" and result.video == VIDEO for result in results)
    assert makespan(renderer.completions) == 1 + 4 * 10 + 3, "only the first encode and the last decode are exposed"
    hidden = {(o.other.assignment.request_id, o.other.assignment.stage) for o in overlaps(renderer.completions)}
    assert {("a", Stage.DECODE), ("b", Stage.DECODE), ("c", Stage.DECODE), ("d", Stage.ENCODE_TEXT)} <= hidden


def test_one_failed_clip_does_not_stop_the_others():
    def ending(assignment: Assignment) -> str:
        return "failed" if assignment.request_id == "b" and assignment.stage is Stage.DENOISE else "well"

    executor = FakeExecutor(ending)
    results = {r.request.request_id: r for r in Renderer(Scheduler(PINNED), executor).render(REQUESTS)}
    assert {name: result.status for name, result in results.items()} == {
        "a": "done", "b": "failed", "c": "done", "d": "done",
    }  # fmt: skip
    assert results["b"].error == "RuntimeError: boom"
    assert [c.assignment.stage for c in results["b"].completions] == [Stage.ENCODE_TEXT, Stage.DENOISE]
    assert sorted(executor.released) == ["a", "b", "c", "d"], "nothing of a finished clip is kept"


def test_a_lost_worker_costs_no_clip_while_another_can_do_its_work():
    lost = []

    def ending(assignment: Assignment) -> str:
        if assignment.worker_id == "w1" and not lost:
            lost.append(assignment)
            return "lost"
        return "well"

    workers = tuple(Worker(f"w{i}", STAGES, "cpu", i) for i in range(2))
    placement = Placement("replicated", workers, {Stage.DENOISE: 2, Stage.DECODE: 2})
    results = list(Renderer(Scheduler(placement), FakeExecutor(ending)).render(REQUESTS))
    assert lost and {result.status for result in results} == {"done"}


def test_without_a_transformer_the_run_ends_and_blames_no_clip():
    def ending(assignment: Assignment) -> str:
        return "lost" if assignment.stage is Stage.DENOISE else "well"

    renderer = Renderer(Scheduler(PINNED), FakeExecutor(ending))
    with pytest.raises(WorkersLostError, match="no worker is left that can run denoise; the last one: .*boom"):
        list(renderer.render(REQUESTS))


class FakeResumption:
    """What is on disk, by request; `damaged` shows only when it is loaded."""

    def __init__(self, on_disk: dict[str, Stage], damaged: set[str] = frozenset()) -> None:
        self.on_disk, self.damaged = dict(on_disk), set(damaged)
        self.kept: list[tuple[str, Stage]] = []

    def first_stage(self, request: RenderRequest) -> Stage:
        return self.on_disk.get(request.request_id, STAGES[0])

    def load(self, request: RenderRequest, stage: Stage) -> str | None:
        assert self.on_disk[request.request_id] is stage
        if request.request_id in self.damaged:
            del self.on_disk[request.request_id]
            return None
        return f"{request.request_id} before {stage}"

    def keep(self, request: RenderRequest, stage: Stage, fetch: Callable[[], StageOutput]) -> None:
        self.kept.append((request.request_id, stage))

    def forget(self, request: RenderRequest) -> None: ...


class KeepingExecutor(FakeExecutor):
    """Remembers what it was handed from disk."""

    def __init__(self, ending: Callable[[Assignment], str] = lambda assignment: "well") -> None:
        super().__init__(ending)
        self.restored: list[str] = []

    def fetcher(self, request_id: str) -> Callable[[], StageOutput]:
        return lambda: VIDEO

    def restore(self, request_id: str, output: StageOutput) -> None:
        self.restored.append(str(output))


def run_resumed(resumption: FakeResumption, executor: KeepingExecutor) -> list[tuple[str, Stage]]:
    renderer = Renderer(Scheduler(PINNED), executor, resumption)  # type: ignore[arg-type]
    assert {result.status for result in renderer.render(REQUESTS)} == {"done"}
    return [(c.assignment.request_id, c.assignment.stage) for c in renderer.completions]


def test_each_request_goes_on_after_the_latest_output_that_is_there():
    resumption = FakeResumption({"a": Stage.DECODE, "c": Stage.DENOISE})
    executor = KeepingExecutor()
    ran = run_resumed(resumption, executor)
    assert [stage for name, stage in ran if name == "a"] == [Stage.DECODE]
    assert [stage for name, stage in ran if name == "c"] == [Stage.DENOISE, Stage.DECODE]
    assert [stage for name, stage in ran if name == "b"] == list(STAGES)
    assert sorted(executor.restored) == ["a before decode", "c before denoise"]
    assert ("c", Stage.DENOISE) in resumption.kept and ("c", Stage.ENCODE_TEXT) not in resumption.kept


def test_what_turns_out_to_be_damaged_is_made_again():
    ran = run_resumed(FakeResumption({"a": Stage.DECODE, "c": Stage.DENOISE}, damaged={"a", "c"}), KeepingExecutor())
    assert sorted(ran) == sorted((request.request_id, stage) for request in REQUESTS for stage in STAGES)


def test_a_lost_input_is_taken_from_disk_again():
    lost: list[Assignment] = []

    def ending(assignment: Assignment) -> str:
        if assignment.request_id == "a" and assignment.stage is Stage.DECODE and not lost:
            lost.append(assignment)
            return "input lost"
        return "well"

    executor = KeepingExecutor(ending)
    ran = run_resumed(FakeResumption({"a": Stage.DECODE}), executor)
    assert [stage for name, stage in ran if name == "a"] == [Stage.DECODE, Stage.DECODE]
    assert executor.restored == ["a before decode"] * 2


def test_the_videos_are_not_kept():
    renderer = Renderer(Scheduler(PINNED), FakeExecutor())
    list(renderer.render(REQUESTS))
    assert all(completion.video is None for completion in renderer.completions)
