"""The loop against an executor on a virtual clock: overlap, isolation of failures, one result for each request."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from fakes import VIDEO, FakeExecutor, make_request, replicated

from ltx_dist.engine.loop import TICK_SECONDS, Renderer, WorkersLostError
from ltx_dist.pipeline.payloads import StageOutput
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.stages import STAGES, Stage
from ltx_dist.pipeline.timeline import makespan, overlaps
from ltx_dist.pipeline.work import Assignment, Completion, Failure
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.scheduling.scheduler import Scheduler

REQUESTS = [make_request(name) for name in "abcd"]
PINNED = Placement(
    "pinned",
    tuple(Worker(f"w{i}", (stage,), "cpu", i) for i, stage in enumerate(STAGES)),
    {Stage.DENOISE: 2, Stage.DECODE: 2},
)


def well(assignment: Assignment) -> Failure | None:
    return None


def make_renderer(executor: FakeExecutor, placement: Placement = PINNED, **options) -> Renderer:
    return Renderer(Scheduler(placement), executor, clock=lambda: executor.now, **options)


def test_encode_and_decode_run_inside_the_denoise_of_other_clips():
    renderer = make_renderer(FakeExecutor(PINNED))
    results = list(renderer.render(REQUESTS))
    assert [result.request.request_id for result in results] == ["a", "b", "c", "d"]
    assert all(result.status == "done" and result.video == VIDEO for result in results)
    assert makespan(renderer.completions) == 1 + 4 * 10 + 3, "only the first encode and the last decode are exposed"
    hidden = {(o.other.assignment.clips, o.other.assignment.stage) for o in overlaps(renderer.completions)}
    assert {("a", Stage.DECODE), ("b", Stage.DECODE), ("c", Stage.DECODE), ("d", Stage.ENCODE_TEXT)} <= hidden


def test_one_failed_clip_does_not_stop_the_others():
    def ending(assignment: Assignment) -> Failure | None:
        return Failure.ERROR if assignment.clips == "b" and assignment.stage is Stage.DENOISE else None

    executor = FakeExecutor(PINNED, ending)
    results = {r.request.request_id: r for r in make_renderer(executor).render(REQUESTS)}
    assert {name: result.status for name, result in results.items()} == {
        "a": "done", "b": "failed", "c": "done", "d": "done",
    }  # fmt: skip
    assert results["b"].error == "boom: error"
    assert [c.assignment.stage for c in results["b"].completions] == [Stage.ENCODE_TEXT, Stage.DENOISE]
    assert sorted(executor.released) == ["a", "b", "c", "d"], "nothing of a finished clip is kept"


def test_a_lost_worker_costs_no_clip_while_another_can_do_its_work():
    lost = []

    def ending(assignment: Assignment) -> Failure | None:
        if assignment.worker_id == "w1" and not lost:
            lost.append(assignment)
            return Failure.NODE_LOST
        return None

    executor = FakeExecutor(replicated(2), ending)
    results = list(make_renderer(executor, replicated(2)).render(REQUESTS))
    assert lost and {result.status for result in results} == {"done"}
    assert "w1" not in executor.up


def test_without_a_transformer_the_run_ends_and_blames_no_clip():
    def ending(assignment: Assignment) -> Failure | None:
        return Failure.NODE_LOST if assignment.stage is Stage.DENOISE else None

    renderer = make_renderer(FakeExecutor(PINNED, ending))
    with pytest.raises(WorkersLostError, match="no worker is left that can run denoise; the last one: .*boom"):
        list(renderer.render(REQUESTS))


def test_a_worker_that_crashed_is_started_anew_and_used():
    crashed = []

    def ending(assignment: Assignment) -> Failure | None:
        if not crashed and assignment.stage is Stage.DENOISE:
            crashed.append(assignment)
            return Failure.CRASH
        return None

    executor = FakeExecutor(PINNED, ending)
    results = list(make_renderer(executor).render(REQUESTS))
    assert {result.status for result in results} == {"done"} and executor.starts["w1"] == 2


def joined_after_a_turn(executor: FakeExecutor, renderer: Renderer) -> list[str]:
    """The requests as they ended; a second worker came after the first turn."""
    renderer.begin(REQUESTS)
    renderer.turn()
    executor.join(Worker("new", STAGES, "cpu"))
    executor.starts["new"] = 1
    results: list[str] = []
    while len(results) < len(REQUESTS):
        results += [result.request.request_id for result in renderer.turn()]
    return results


def test_a_worker_that_joins_takes_work():
    executor = FakeExecutor(replicated(1))
    bounds = {Stage.DENOISE: 4, Stage.DECODE: 4}
    renderer = make_renderer(executor, replicated(1), bounds=lambda: bounds)
    joined_after_a_turn(executor, renderer)
    assert "new" in {c.assignment.worker_id for c in renderer.completions}


def test_what_waits_is_put_in_order_when_a_worker_joins():
    asked: list[list[str]] = []

    def reorder(scheduler: Scheduler) -> Iterator[list[str] | None]:
        asked.append(list(scheduler.waiting()))
        yield None
        if len(asked) > 1:
            yield asked[-1][::-1]

    executor = FakeExecutor(replicated(1))
    results = joined_after_a_turn(executor, make_renderer(executor, replicated(1), reorder=reorder))
    assert len(asked) >= 2 and sorted(results) == list("abcd") and results.index("d") < results.index("c")


def test_looking_for_an_order_takes_a_tenth_of_the_time_and_ends_with_a_stop():
    """3 ms a piece, for ever; nothing else happens meanwhile."""
    now, pieces, waits, stopped = [0.0], [], [], []

    def reorder(scheduler: Scheduler) -> Iterator[None]:
        while True:
            pieces.append(now[0])
            now[0] += 0.003
            yield

    def waiting(timeout: float) -> list[Completion]:
        waits.append(timeout)
        now[0] += timeout
        return []

    executor = FakeExecutor(replicated(1))
    renderer = Renderer(
        Scheduler(replicated(1)), executor, clock=lambda: now[0], reorder=reorder, is_stopped=lambda: bool(stopped)
    )
    renderer.begin(REQUESTS)
    while not any(a.stage is Stage.DECODE for a in executor.running):
        renderer.turn()
    executor.wait = waiting
    begun, num_pieces = now[0], len(pieces)
    for _ in range(100):
        renderer.turn()
    assert 0.003 * (len(pieces) - num_pieces) == pytest.approx(0.1 * (now[0] - begun), rel=0.2)
    stopped.append(True)
    num_pieces = len(pieces)
    renderer.turn()
    renderer.turn()
    assert waits[-2:] == [TICK_SECONDS] * 2 and len(pieces) == num_pieces


def test_a_stop_publishes_what_is_nearly_there_and_begins_nothing():
    stopped: list[bool] = []
    executor = FakeExecutor(replicated(1, video_slots=1))
    renderer = make_renderer(executor, replicated(1, video_slots=1), is_stopped=lambda: bool(stopped))
    done = []
    with pytest.raises(KeyboardInterrupt):
        renderer.begin(REQUESTS)
        while True:
            done += [result.request.request_id for result in renderer.turn()]
            if any(a.stage is Stage.DECODE for a in executor.running):
                stopped.append(True)
    assert done == ["a"], "its frames were nearly there"
    assert {a.clips for a, _ in executor.started} == {"a"}


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

    def __init__(self, placement: Placement = PINNED, ending: Callable[[Assignment], Failure | None] = well) -> None:
        super().__init__(placement, ending)
        self.restored: list[str] = []

    def fetcher(self, request_id: str, stage: str) -> Callable[[], StageOutput]:
        return lambda: VIDEO

    def restore(self, request_id: str, stage: str, output: StageOutput) -> None:
        self.restored.append(str(output))


def run_resumed(resumption: FakeResumption, executor: KeepingExecutor) -> list[tuple[str, Stage]]:
    renderer = make_renderer(executor, resumption=resumption)
    assert {result.status for result in renderer.render(REQUESTS)} == {"done"}
    return [(c.assignment.clips, c.assignment.stage) for c in renderer.completions]


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

    def ending(assignment: Assignment) -> Failure | None:
        if assignment.clips == "a" and assignment.stage is Stage.DECODE and not lost:
            lost.append(assignment)
            return Failure.INPUT_LOST
        return None

    executor = KeepingExecutor(ending=ending)
    ran = run_resumed(FakeResumption({"a": Stage.DECODE}), executor)
    assert [stage for name, stage in ran if name == "a"] == [Stage.DECODE, Stage.DECODE]
    assert executor.restored == ["a before decode"] * 2


def test_the_videos_are_not_kept():
    renderer = make_renderer(FakeExecutor(PINNED))
    list(renderer.render(REQUESTS))
    assert all(completion.video is None for completion in renderer.completions)
