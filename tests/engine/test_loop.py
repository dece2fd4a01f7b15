"""The loop against an executor on a virtual clock: overlap, isolation of failures, one result for each request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from builders import RECIPE, STAGES, D, E, M, V
from fakes import VIDEO, FakeExecutor, make_request, replicated

from ltx_dist.engine.deadlines import NEWS_SECONDS
from ltx_dist.engine.loop import TICK_SECONDS, BatchLoop
from ltx_dist.engine.workers import WorkersLostError
from ltx_dist.pipeline.payloads import StageOutput
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.timeline import makespan, overlaps
from ltx_dist.pipeline.work import Assignment, Completion, Failure
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.scheduling.scheduler import Order, Scheduler

REQUESTS = [make_request(name) for name in "abcd"]
PINNED = Placement(
    RECIPE,
    "pinned",
    tuple(Worker(f"w{i}", (stage,), "cpu", i) for i, stage in enumerate(STAGES)),
    {D: 2, V: 2},
)


def well(assignment: Assignment) -> Failure | None:
    return None


def make_loop(executor: FakeExecutor, placement: Placement = PINNED, **options) -> BatchLoop:
    return BatchLoop(Scheduler(placement), executor, clock=lambda: executor.now, **options)


def test_encode_and_decode_run_inside_the_denoise_of_other_clips():
    loop = make_loop(FakeExecutor(PINNED))
    results = list(loop.render(REQUESTS))
    assert [result.request.request_id for result in results] == ["a", "b", "c", "d"]
    assert all(result.status == "done" and result.video == VIDEO for result in results)
    assert makespan(loop.completions) == 1 + 4 * 10 + 3 + 1, (
        "only the first encode, the last decode and its mp4 are exposed"
    )
    hidden = {(o.other.assignment.clips, o.other.assignment.stage) for o in overlaps(loop.completions, RECIPE)}
    assert {("a", V), ("b", V), ("c", V), ("d", E)} <= hidden


def test_one_failed_clip_does_not_stop_the_others():
    def ending(assignment: Assignment) -> Failure | None:
        return Failure.ERROR if assignment.clips == "b" and assignment.stage == D else None

    executor = FakeExecutor(PINNED, ending)
    results = {r.request.request_id: r for r in make_loop(executor).render(REQUESTS)}
    assert {name: result.status for name, result in results.items()} == {
        "a": "done", "b": "failed", "c": "done", "d": "done",
    }  # fmt: skip
    assert results["b"].error == "boom: error"
    assert [c.assignment.stage for c in results["b"].completions] == [E, D]
    assert sorted(executor.released) == ["a", "b", "c", "d"], "nothing of a finished clip is kept"


def test_a_lost_worker_costs_no_clip_while_another_can_do_its_work():
    lost = []

    def ending(assignment: Assignment) -> Failure | None:
        if assignment.worker_id == "w1" and not lost:
            lost.append(assignment)
            return Failure.NODE_LOST
        return None

    executor = FakeExecutor(replicated(2), ending)
    results = list(make_loop(executor, replicated(2)).render(REQUESTS))
    assert lost and {result.status for result in results} == {"done"}
    assert "w1" not in executor.up


def test_without_a_transformer_the_run_ends_and_blames_no_clip():
    def ending(assignment: Assignment) -> Failure | None:
        return Failure.NODE_LOST if assignment.stage == D else None

    loop = make_loop(FakeExecutor(PINNED, ending))
    with pytest.raises(WorkersLostError, match="no worker is left that can run denoise; the last one: .*boom"):
        list(loop.render(REQUESTS))


def test_a_worker_that_crashed_is_started_anew_and_used():
    crashed = []

    def ending(assignment: Assignment) -> Failure | None:
        if not crashed and assignment.stage == D:
            crashed.append(assignment)
            return Failure.CRASH
        return None

    executor = FakeExecutor(PINNED, ending)
    results = list(make_loop(executor).render(REQUESTS))
    assert {result.status for result in results} == {"done"} and executor.starts["w1"] == 2


def joined_after_a_turn(executor: FakeExecutor, loop: BatchLoop) -> list[str]:
    """The requests in the order of their ends, if a second worker joins after the first turn."""
    loop.begin(REQUESTS)
    loop.turn()
    executor.join(Worker("new", STAGES, "cpu"))
    executor.starts["new"] = 1
    results: list[str] = []
    while len(results) < len(REQUESTS):
        results += [result.request.request_id for result in loop.turn()]
    return results


def test_a_worker_that_joins_takes_work():
    executor = FakeExecutor(replicated(1))
    bounds = {D: 4, V: 4}
    loop = make_loop(executor, replicated(1), bounds=lambda: bounds)
    joined_after_a_turn(executor, loop)
    assert "new" in {c.assignment.worker_id for c in loop.completions}


def test_what_waits_is_put_in_order_when_a_worker_joins():
    asked: list[list[str]] = []

    def reorder(scheduler: Scheduler) -> Iterator[Order | None]:
        asked.append(list(scheduler.waiting()))
        yield None
        if len(asked) > 1:
            yield Order(asked[-1][::-1])

    executor = FakeExecutor(replicated(1))
    results = joined_after_a_turn(executor, make_loop(executor, replicated(1), reorder=reorder))
    assert len(asked) >= 2 and sorted(results) == list("abcd") and results.index("d") < results.index("c")


def test_looking_for_an_order_takes_a_tenth_of_the_time_and_ends_with_a_stop():
    """Makes a piece every 3 ms, forever; nothing else happens meanwhile."""
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
    loop = BatchLoop(
        Scheduler(replicated(1)), executor, clock=lambda: now[0], reorder=reorder, is_stopped=lambda: bool(stopped)
    )
    loop.begin(REQUESTS)
    while not any(a.stage == V for a in executor.running):
        loop.turn()
    executor.wait = waiting
    begun, num_pieces = now[0], len(pieces)
    for _ in range(100):
        loop.turn()
    assert 0.003 * (len(pieces) - num_pieces) == pytest.approx(0.1 * (now[0] - begun), rel=0.2)
    stopped.append(True)
    num_pieces = len(pieces)
    loop.turn()
    loop.turn()
    assert waits[-2:] == [TICK_SECONDS] * 2 and len(pieces) == num_pieces


def test_a_stop_publishes_what_is_nearly_there_and_begins_nothing():
    stopped: list[bool] = []
    executor = FakeExecutor(replicated(1, host_slots=1))
    loop = make_loop(executor, replicated(1, host_slots=1), is_stopped=lambda: bool(stopped))
    done = []
    with pytest.raises(KeyboardInterrupt):
        loop.begin(REQUESTS)
        while True:
            done += [result.request.request_id for result in loop.turn()]
            if any(a.stage == V for a in executor.running):
                stopped.append(True)
    assert done == ["a"], "its frames were nearly there"
    assert {a.clips for a, _ in executor.started} == {"a"}


class FakeKeptOutputs:
    """The stage whose output is on disk, by request. Damage shows only when an output is loaded."""

    def __init__(self, on_disk: dict[str, str], damaged: set[str] = frozenset()) -> None:
        self.on_disk, self.damaged = dict(on_disk), set(damaged)
        self.kept: list[tuple[str, str]] = []

    def made(self, request: RenderRequest) -> frozenset[str]:
        return frozenset(filter(None, [self.on_disk.get(request.request_id)]))

    def load(self, request: RenderRequest, stage: str) -> str | None:
        assert self.on_disk[request.request_id] == stage
        if request.request_id in self.damaged:
            del self.on_disk[request.request_id]
            return None
        return f"{stage} of {request.request_id}"

    def keep(self, request: RenderRequest, stage: str, fetch: Callable[[], StageOutput]) -> None:
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


def run_resumed(resumption: FakeKeptOutputs, executor: KeepingExecutor) -> list[tuple[str, str]]:
    loop = make_loop(executor, resumption=resumption)
    assert {result.status for result in loop.render(REQUESTS)} == {"done"}
    return [(c.assignment.clips, c.assignment.stage) for c in loop.completions]


def test_each_request_goes_on_after_the_latest_output_that_is_there():
    resumption = FakeKeptOutputs({"a": D, "c": E})
    executor = KeepingExecutor()
    ran = run_resumed(resumption, executor)
    assert [stage for name, stage in ran if name == "a"] == [V, M]
    assert [stage for name, stage in ran if name == "c"] == [D, V, M]
    assert [stage for name, stage in ran if name == "b"] == list(RECIPE.names)
    assert sorted(executor.restored) == ["denoise of a", "encode_text of c"]
    assert ("c", D) in resumption.kept and ("c", E) not in resumption.kept


def test_what_turns_out_to_be_damaged_is_made_again():
    ran = run_resumed(FakeKeptOutputs({"a": D, "c": E}, damaged={"a", "c"}), KeepingExecutor())
    assert sorted(ran) == sorted((request.request_id, stage) for request in REQUESTS for stage in RECIPE.names)


def test_a_lost_input_is_taken_from_disk_again():
    lost: list[Assignment] = []

    def ending(assignment: Assignment) -> Failure | None:
        if assignment.clips == "a" and assignment.stage == V and not lost:
            lost.append(assignment)
            return Failure.INPUT_LOST
        return None

    executor = KeepingExecutor(ending=ending)
    ran = run_resumed(FakeKeptOutputs({"a": D}), executor)
    assert [stage for name, stage in ran if name == "a"] == [V, V, M]
    assert executor.restored == ["denoise of a"] * 2


def test_what_is_made_from_other_pixels_than_planned_is_not_kept_either():
    """Its sidecar would no longer say so, once the clip has resumed from it."""

    class ShortOnce(KeepingExecutor):
        def wait(self, timeout: float) -> list[Completion]:
            return [
                replace(c, report=replace(c.report, fallback="float8", changes_pixels=True))
                if (c.assignment.clips, c.assignment.stage) == ("a", E)
                else c
                for c in super().wait(timeout)
            ]

    resumption = FakeKeptOutputs({})
    run_resumed(resumption, ShortOnce())
    assert {stage for name, stage in resumption.kept if name == "b"} == {E, D}
    assert not [stage for name, stage in resumption.kept if name == "a"], "neither that stage nor the one after it"


def test_the_videos_are_not_kept():
    loop = make_loop(FakeExecutor(PINNED))
    list(loop.render(REQUESTS))
    assert all(completion.video is None for completion in loop.completions)


@pytest.mark.fault(21)
def test_a_worker_is_not_called_hung_because_the_driver_was_stopped():
    """Clip c hangs; a thousand seconds without a turn of the loop do not count against it."""

    def ending(assignment: Assignment) -> Failure | None:
        return Failure.HANG if assignment.clips == "c" else None

    executor = FakeExecutor(replicated(1), ending)
    loop = make_loop(executor, replicated(1))
    loop.begin(REQUESTS)
    while not any(a.clips == "c" and a.stage == "encode_text" for a in executor.running):
        loop.turn()
    executor.now += 1000.0
    resumed = executor.now
    while not (failed := [c for c in loop.completions if c.failure]):
        loop.turn()
    assert failed[0].failure is Failure.HANG and failed[0].finished >= resumed + NEWS_SECONDS
