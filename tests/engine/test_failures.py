"""Who is blamed for poison clips, bad workers, hangs and lost nodes; and that random failures lose no clip."""

from __future__ import annotations

import random
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from builders import RECIPE, STAGES, D, M, V, predicted
from fakes import FakeExecutor, make_request, replicated
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tiers import examples

from ltx_dist.engine.failures import (
    MAX_ATTEMPTS,
    MAX_LOSSES,
    MOST_ATTEMPTS,
    SYSTEMIC,
    FailurePolicy,
    SystemicError,
)
from ltx_dist.engine.loop import BatchLoop
from ltx_dist.engine.workers import WorkersLostError
from ltx_dist.pipeline.work import Assignment, Completion, Failure, RenderResult, StageReport
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.planning.order_search import better_orders
from ltx_dist.scheduling.scheduler import Order, Scheduler


def make_renderer(executor: FakeExecutor, placement: Placement, **options) -> BatchLoop:
    return BatchLoop(Scheduler(placement), executor, clock=lambda: executor.now, **options)


def render(executor: FakeExecutor, placement: Placement, num_clips: int) -> dict[str, RenderResult]:
    renderer = make_renderer(executor, placement)
    results = list(renderer.render([make_request(f"{i}") for i in range(num_clips)]))
    assert len(results) == num_clips, "one result each"
    return {result.request.request_id: result for result in results}


@pytest.mark.parametrize("failure", [Failure.CRASH, Failure.HANG])
@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_a_poison_clip_fails_alone_after_three_attempts(failure: Failure, num_workers: int):
    def ending(assignment: Assignment) -> Failure | None:
        return failure if assignment.clips == "7" and assignment.stage == D else None

    executor = FakeExecutor(replicated(num_workers), ending)
    results = render(executor, replicated(num_workers), 20)
    assert [name for name, result in results.items() if result.status == "failed"] == ["7"]
    assert (results["7"].error or "").startswith("given up after 3 attempts: ")
    attempts = [(a.worker_id, fresh) for a, fresh in executor.started if a.clips == "7" and a.stage == D]
    assert len(attempts) == 3 and attempts[-1][1], "the last of them on a fresh worker"
    assert attempts[0][0] != attempts[1][0] or num_workers == 1, "the second on another"


def test_where_workers_die_whatever_they_run_a_clip_is_blamed_when_others_fare_better():
    """In 20 batches, about a third of denoisings and some other stages die with their worker; clip 30's always do.

    By chance, 30 of the 780 other clips then crash three times in a row. They are blamed only if that happens before
    the policy has seen clips crash on both workers and still succeed.
    """
    blamed: Counter[str] = Counter()
    for seed in range(20):
        rng = random.Random(seed)

        def ending(assignment: Assignment, rng: random.Random = rng) -> Failure | None:
            if assignment.stage == M:
                return None
            dies = rng.random() < (1 / 3 if assignment.stage == D else 0.05)
            is_poison = assignment.clips == "30" and assignment.stage == D
            return Failure.CRASH if dies or is_poison else None

        results = render(FakeExecutor(replicated(2), ending), replicated(2), 40)
        blamed += Counter(name for name, result in results.items() if result.status == "failed")
        crashes = [c for c in results["30"].completions if c.failure is Failure.CRASH]
        attempts = [c for c in crashes if c.assignment.stage == D]
        assert MAX_ATTEMPTS <= len(attempts) <= MOST_ATTEMPTS
        assert (results["30"].error or "").startswith(f"given up after {len(attempts)} attempts: ")
    assert blamed["30"] == 20 and blamed.total() <= 35


def test_however_often_others_crash_there_is_an_end():
    policy = FailurePolicy()
    for name in map(str, range(20)):
        for _ in range(2):  # then it succeeds
            policy.judge(end(name, Failure.CRASH), name, {"w0"})
        policy.succeeded(replace(end(name, Failure.CRASH), failure=None, report=StageReport(1.0)), is_done=True)
    verdicts = [policy.judge(end("a", Failure.CRASH), "a", {"w0"}) for _ in range(MOST_ATTEMPTS)]
    assert all(verdict.error is None for verdict in verdicts[:-1])
    assert verdicts[-1].error == f"given up after {MOST_ATTEMPTS} attempts: boom"
    assert [verdict.alone for verdict in verdicts[:3]] == [False, True, True]


def test_a_bad_worker_is_no_excuse_while_the_others_start_anew():
    policy = FailurePolicy()
    for name in "bc":
        policy.judge(end(name, Failure.CRASH), name, {"w0", "w1"})
        well = Completion(Assignment((name,), D, "w1"), 0.0, 1.0, StageReport(1.0))
        policy.succeeded(well, is_done=True)
    only_one_is_up = {"w0"}
    verdicts = [policy.judge(end("a", Failure.CRASH), "a", only_one_is_up) for _ in range(MAX_ATTEMPTS)]
    assert verdicts[-1].error == "given up after 3 attempts: boom"


def test_that_many_clips_are_poison_does_not_give_each_more_attempts():
    def ending(assignment: Assignment) -> Failure | None:
        return Failure.CRASH if int(assignment.clips) % 2 and assignment.stage == D else None

    results = render(FakeExecutor(replicated(2), ending), replicated(2), 20)
    failed = [result for result in results.values() if result.status == "failed"]
    assert len(failed) == 10
    assert all((result.error or "").startswith("given up after 3 attempts: ") for result in failed)


def test_a_bad_worker_is_dropped_and_its_clips_are_not_blamed():
    def ending(assignment: Assignment) -> Failure | None:
        return Failure.CRASH if assignment.worker_id == "w1" and assignment.stage == D else None

    executor = FakeExecutor(replicated(3), ending)
    results = render(executor, replicated(3), 20)
    assert {result.status for result in results.values()} == {"done"}
    assert "w1" not in executor.up and executor.starts["w1"] == 3, "its third crash in a row was its last"


def test_a_worker_that_raises_at_every_clip_is_ended():
    def ending(assignment: Assignment) -> Failure | None:
        return Failure.ERROR if assignment.worker_id == "w0" and assignment.stage == D else None

    executor = FakeExecutor(replicated(2), ending)
    results = render(executor, replicated(2), 20)
    assert {result.status for result in results.values()} == {"done"} and "w0" not in executor.up


def test_of_a_poison_clip_and_a_bad_worker_each_is_blamed_for_its_own():
    def ending(assignment: Assignment) -> Failure | None:
        if assignment.stage != D:
            return None
        return Failure.CRASH if assignment.clips == "7" or assignment.worker_id == "w1" else None

    executor = FakeExecutor(replicated(3), ending)
    results = render(executor, replicated(3), 20)
    assert [name for name, result in results.items() if result.status == "failed"] == ["7"]
    assert executor.up == {"w0", "w2"}
    assert (results["7"].error or "").startswith("given up after 3 attempts: "), "those of w1 are no excuse"


def test_the_only_worker_of_a_stage_is_never_dropped():
    def ending(assignment: Assignment) -> Failure | None:
        return Failure.ERROR if assignment.clips in "1234" else None

    results = render(FakeExecutor(replicated(1), ending), replicated(1), 10)
    assert Counter(result.status for result in results.values()) == {"done": 6, "failed": 4}


def test_a_batch_in_which_everything_fails_alike_stops_early():
    executor = FakeExecutor(replicated(2), lambda a: Failure.ERROR if a.stage == D else None)
    with pytest.raises(SystemicError, match="the first 5 clips all failed in the same way: denoise: boom"):
        render(executor, replicated(2), 100)
    assert len({a.clips for a, _ in executor.started}) < 20


def test_a_batch_of_few_clips_that_all_fail_is_finished():
    executor = FakeExecutor(replicated(1), lambda a: Failure.ERROR)
    assert {result.status for result in render(executor, replicated(1), SYSTEMIC).values()} == {"failed"}


def end(name: str, failure: Failure, error: str = "boom") -> Completion:
    return Completion(Assignment((name,), D, "w0"), 0.0, 1.0, StageReport(1.0, error=error), failure)


@pytest.mark.parametrize("failure", [Failure.QUEUED, Failure.NODE_LOST, Failure.INPUT_LOST])
def test_what_no_clip_can_help_is_not_charged_and_yet_bounded(failure: Failure):
    policy = FailurePolicy()
    verdicts = [policy.judge(end("a", failure), "a", {"w0", "w1"}) for _ in range(MAX_LOSSES)]
    assert all(verdict.error is None and not verdict.alone for verdict in verdicts[:-1])
    assert verdicts[-1].error == f"given up after {MAX_LOSSES} losses: boom"
    assert verdicts[0].from_disk == (failure is Failure.INPUT_LOST)


def test_an_error_gets_a_second_opinion_where_there_is_one():
    assert FailurePolicy().judge(end("a", Failure.ERROR), "a", {"w0"}).error == "boom"
    policy = FailurePolicy()
    assert policy.judge(end("a", Failure.ERROR), "a", {"w0", "w1"}).avoid == {"w0"}
    assert policy.judge(end("a", Failure.ERROR), "a", {"w0", "w1"}).error == "boom"


def test_a_second_opinion_is_worth_waiting_for():
    policy = FailurePolicy()
    assert policy.judge(end("a", Failure.ERROR), "a", {"w0"}, expected={"w1"}).avoid == {"w0"}
    assert policy.judge(end("b", Failure.ERROR), "b", {"w0"}, expected={"w0"}).error == "boom"
    crashed: list[Assignment] = []

    def ending(assignment: Assignment) -> Failure | None:
        if assignment.stage != D:
            return None
        if assignment.worker_id == "w1" and not crashed:
            crashed.append(assignment)
            return Failure.CRASH
        return Failure.ERROR if assignment.worker_id == "w0" and assignment.clips in ("2", "3") else None

    executor = FakeExecutor(replicated(2), ending, load_seconds=100.0)
    results = render(executor, replicated(2), 6)
    assert {result.status for result in results.values()} == {"done"}
    tried = {c.assignment.worker_id for c in results["2"].completions if c.assignment.stage == D}
    assert tried == {"w0", "w1"}, "w0 raised while w1 was restarting"


def test_each_stage_has_its_own_second_opinion():
    policy = FailurePolicy()
    assert policy.judge(end("a", Failure.ERROR), "a", {"w0", "w1"}).error is None
    at_decode = Completion(Assignment(("a",), V, "w1"), 0.0, 1.0, StageReport(1.0, error="boom"))
    verdict = policy.judge(replace(at_decode, failure=Failure.ERROR), "a", {"w0", "w1"})
    assert verdict.error is None


def test_what_runs_beside_a_hung_stage_is_not_charged():
    """An mp4 that is never finished, while another clip denoises on the same worker."""
    hung: list[Assignment] = []

    def ending(assignment: Assignment) -> Failure | None:
        if assignment.stage == M and not hung:
            hung.append(assignment)
            return Failure.HANG
        return None

    placement = replace(replicated(1, host_slots=1), max_queued={D: 2, V: 200})
    results = render(FakeExecutor(placement, ending), placement, 200)
    assert {result.status for result in results.values()} == {"done"}
    failures = [c for result in results.values() for c in result.completions if c.failure]
    assert [c.assignment for c in failures if c.failure is Failure.HANG] == hung
    assert {c.failure for c in failures if c.assignment not in hung} == {Failure.QUEUED}


def test_a_streak_has_an_end():
    policy = FailurePolicy()
    for i in range(1000):
        policy.judge(end(f"{i}", Failure.ERROR), f"{i}", {"w0"})
    assert policy.is_bad("w0") and len(policy._streaks["w0", D]) <= 12


def test_errors_that_differ_in_their_numbers_are_alike():
    policy = FailurePolicy()
    for i in range(SYSTEMIC):
        policy.judge(end(f"{i}", Failure.ERROR, f"ValueError: shape {i}\nof {i}"), f"{i}", {"w0"})
    with pytest.raises(SystemicError, match="shape #"):
        policy.check_systemic()
    policy = FailurePolicy()
    for i in range(SYSTEMIC):
        policy.judge(end(f"{i}", Failure.ERROR, "ValueError: a" if i else "OSError: b"), f"{i}", {"w0"})
    policy.check_systemic()


def test_a_hung_stage_is_ended_at_its_deadline():
    hung = []

    def ending(assignment: Assignment) -> Failure | None:
        if assignment.stage == V and assignment.clips == "9" and not hung:
            hung.append(assignment)
            return Failure.HANG
        return None

    executor = FakeExecutor(replicated(1), ending)
    results = render(executor, replicated(1), 12)
    assert {result.status for result in results.values()} == {"done"}
    (lost,) = [c for c in results["9"].completions if c.failure]
    assert lost.failure is Failure.HANG and 60 <= lost.finished - lost.started <= 80
    assert "s (limit 60 s)" in (lost.error or "")


def chaos(num_clips: int, num_workers: int, traced: bool = True) -> tuple[dict[str, RenderResult], list[float], float]:
    """Results, seconds of each turn, and bytes that stayed, if 1 % of assignments crash their worker and 0.1 % hang."""
    rng = random.Random(0)

    def ending(assignment: Assignment) -> Failure | None:
        at = rng.random()
        return Failure.CRASH if at < 0.01 else Failure.HANG if at < 0.011 else None

    executor = FakeExecutor(replicated(num_workers), ending)
    renderer = make_renderer(executor, replicated(num_workers))
    requests = [make_request(f"{i:05}") for i in range(num_clips)]
    results: dict[str, RenderResult] = {}
    ticks: list[float] = []
    if traced:
        tracemalloc.start()
    renderer.begin(requests)
    while len(results) < num_clips:
        started = time.perf_counter()
        for result in renderer.turn():
            assert result.request.request_id not in results
            results[result.request.request_id] = result
        ticks.append(time.perf_counter() - started)
    stayed = float(tracemalloc.get_traced_memory()[0])
    if traced:
        tracemalloc.stop()
    return results, ticks, stayed


def test_a_thousand_clips_on_many_workers_are_all_accounted_for():
    results, _, stayed = chaos(1000, 64)
    counts = Counter(result.status for result in results.values())
    assert counts["done"] + counts["failed"] == 1000 and counts["failed"] <= 2
    assert stayed < 1000 * 5000, "one small record a clip"


def shared(num_workers: int, batch_size: int = 4) -> Placement:
    placement = replicated(num_workers)
    workers = tuple(replace(worker, batch_size=batch_size) for worker in placement.workers)
    return replace(placement, workers=workers, max_queued=dict.fromkeys(placement.max_queued, 4 * num_workers))


def passes_of(executor: FakeExecutor, name: str, stage: str = D) -> list[tuple[str, ...]]:
    return [a.request_ids for a, _ in executor.started if a.stage is stage and name in a.request_ids]


@pytest.mark.parametrize("failure", [Failure.CRASH, Failure.HANG, Failure.ERROR])
@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_a_poison_clip_costs_the_others_of_its_pass_one_attempt(failure: Failure, num_workers: int):
    def ending(assignment: Assignment) -> Failure | None:
        return failure if "2" in assignment.request_ids and assignment.stage == D else None

    placement = shared(num_workers)
    executor = FakeExecutor(placement, ending)
    results = render(executor, placement, 24)
    assert [name for name, result in results.items() if result.status == "failed"] == ["2"]
    company, *alone = passes_of(executor, "2")
    assert len(company) > 1 and set(alone) == {("2",)}
    assert len(alone) == (min(2, num_workers) if failure is Failure.ERROR else 2), "its own errors, or three attempts"
    for name in set(company) - {"2"}:
        assert passes_of(executor, name) == [company, (name,)]
        charged = [c for c in results[name].completions if c.failure is not None]
        assert len(charged) == 1, "not charged beyond one each"
    there = executor.up | {worker_id for _, worker_id in executor._loading}
    assert there == {worker.worker_id for worker in placement.workers}, "and no worker is blamed"


def test_of_a_worker_a_shared_pass_is_one_failure():
    policy = FailurePolicy()
    assignment = Assignment(("a", "b", "c", "d"), D, "w0")
    completion = Completion(assignment, 0.0, 1.0, StageReport(1.0, error="boom"), Failure.CRASH)
    for name in assignment.request_ids:
        verdict = policy.judge(completion, name, {"w0", "w1"})
        assert verdict.error is None and verdict.avoid == {"w0"} and not verdict.shares
    assert not policy.is_bad("w0")
    for name in "ef":
        policy.judge(end(name, Failure.CRASH), name, {"w0", "w1"})
    assert policy.is_bad("w0"), "with two others it is the third in a row"
    elsewhere = Completion(replace(assignment, request_ids=("c",), worker_id="w1"), 0.0, 1.0, completion.report)
    policy.judge(replace(elsewhere, failure=Failure.CRASH), "c", {"w0", "w1"})
    assert not policy.is_bad("w0"), "c has shown that it was to blame"


def test_a_clip_of_a_failed_pass_is_not_shared_again():
    policy = FailurePolicy()
    pair = Completion(Assignment(("a", "b"), D, "w0"), 0.0, 1.0, StageReport(1.0, error="boom"), Failure.ERROR)
    verdict = policy.judge(pair, "a", {"w0"})
    assert (verdict.error, verdict.shares, verdict.avoid) == (None, False, frozenset())
    assert not policy.judge(end("a", Failure.QUEUED), "a", {"w0"}).shares
    assert policy.judge(end("a", Failure.ERROR), "a", {"w0"}).error == "boom", "by itself on the only worker"


class AnythingAtAnyTime(RuleBasedStateMachine):
    """The batch loop with its scheduler and policy. Between turns, workers crash, hang, vanish, return and join."""

    def __init__(self) -> None:
        super().__init__()
        self.executor: FakeExecutor | None = None
        self.results: dict[str, RenderResult] = {}
        self.over: str | None = None
        self.joined = 0

    @precondition(lambda self: self.executor is None)
    @rule(
        num_workers=st.integers(1, 4),
        slots=st.integers(1, 3),
        num_clips=st.integers(1, 25),
        pinned=st.booleans(),
        batch_size=st.integers(1, 4),
    )
    def begin(self, num_workers: int, slots: int, num_clips: int, pinned: bool, batch_size: int) -> None:
        placement = replicated(num_workers, slots)
        if pinned:
            workers = tuple(Worker(f"w{i}", (stage,), "cpu", i) for i, stage in enumerate(STAGES))
            placement = Placement(RECIPE, "pinned", workers, placement.max_queued)
        workers = tuple(replace(worker, batch_size=batch_size) for worker in placement.workers)
        placement = replace(placement, workers=workers)
        self.executor = FakeExecutor(placement)
        works = {f"{i}": (1e12, 24e12 * (1 + i % 5), 13e12 * (1 + i % 3)) for i in range(num_clips)}
        self.costs = predicted(works)
        self.scheduler = Scheduler(placement, self.costs, batch_key=lambda stage, name: int(name) % 2)
        self.renderer = BatchLoop(self.scheduler, self.executor, clock=lambda: self.executor.now, reorder=self.orders)
        self.names = [f"{i}" for i in range(num_clips)]
        self.renderer.begin([make_request(name) for name in self.names])

    def orders(self, scheduler: Scheduler) -> Iterator[Order | None]:
        """Orders of the clips that wait now. When one is adopted, some of its clips run, have failed or are done."""
        waiting, workers = list(scheduler.waiting()), [self.executor.workers[name] for name in sorted(self.executor.up)]
        for order in better_orders(scheduler, workers, self.costs):
            self.executor.now += 1
            yield order
        for turn in range(3):
            self.executor.now += 1
            yield None
            yield Order(waiting[turn:] + waiting[:turn], upstream_first=turn == 1)

    def is_going_on(self) -> bool:
        return self.executor is not None and self.over is None and len(self.results) < len(self.names)

    @precondition(is_going_on)
    @rule()
    def turn(self) -> None:
        try:
            results = self.renderer.turn()
        except (WorkersLostError, SystemicError) as error:
            self.over = str(error)
            return
        for result in results:
            assert result.request.request_id not in self.results, "one terminal result each"
            assert (result.error is None) == (result.status == "done") == (result.video is not None)
            self.results[result.request.request_id] = result

    @precondition(lambda self: self.is_going_on() and self.executor.running)
    @rule(data=st.data(), how=st.sampled_from([Failure.CRASH, Failure.ERROR, Failure.INPUT_LOST, Failure.NODE_LOST]))
    def goes_wrong(self, data: st.DataObject, how: Failure) -> None:
        running = sorted(self.executor.running, key=str)
        self.executor.end(data.draw(st.sampled_from(running)), how)

    @precondition(lambda self: self.is_going_on() and self.executor.running)
    @rule(data=st.data())
    def hangs(self, data: st.DataObject) -> None:
        assignment = data.draw(st.sampled_from(sorted(self.executor.running, key=str)))
        self.executor.running[assignment].ends = float("inf")

    @precondition(lambda self: self.is_going_on() and self.executor.up)
    @rule(data=st.data())
    def a_worker_dies(self, data: st.DataObject) -> None:
        worker_id = data.draw(st.sampled_from(sorted(self.executor.up)))
        self.executor.end_worker(worker_id, Failure.CRASH, "it died, idle or not")

    @precondition(is_going_on)
    @rule()
    def a_worker_joins(self) -> None:
        self.joined += 1
        name = f"new{self.joined}"
        self.executor.starts[name] = 1
        self.executor.join(Worker(name, STAGES, "cpu"))

    @precondition(lambda self: self.is_going_on() and self.renderer.completions)
    @rule(data=st.data())
    def a_late_reply(self, data: st.DataObject) -> None:
        """A late reply. Executors drop these; if one ever comes through, it is refused and changes nothing."""
        late = data.draw(st.sampled_from(self.renderer.completions))
        for running in self.renderer._deadlines.under_way():
            again = set(running.request_ids).intersection(late.assignment.request_ids)
            if again and (running.stage, running.worker_id) == (late.assignment.stage, late.assignment.worker_id):
                return  # the same stage of the same clip on the same worker runs again, perhaps with others
        with pytest.raises((AssertionError, KeyError)):
            self.scheduler.update(late)

    @precondition(lambda self: self.executor is not None and not self.is_going_on())
    @rule()
    def is_over(self) -> None:
        """Nothing is left to be done."""

    @invariant()
    def nothing_is_lost(self) -> None:
        if self.executor is None or self.over:
            return
        charged = Counter(
            (name, c.assignment.stage)
            for c in self.renderer.completions
            for name in c.assignment.request_ids
            if c.failure in (Failure.CRASH, Failure.HANG)
        )
        assert all(count <= MOST_ATTEMPTS for count in charged.values()), charged
        assert self.scheduler.is_finished == (len(self.results) == len(self.names))
        running = Counter(name for a in self.executor.running for name in a.request_ids)
        assert all(count == 1 for count in running.values()), "no clip runs twice at a time"
        assert not running.keys() & self.results.keys(), "nothing runs for a clip that is over"

    def teardown(self) -> None:
        """Left undisturbed, the batch ends: every clip has a result, or there is a stage that no worker can run."""
        for _ in range(3000):
            if not self.is_going_on():
                break
            self.turn()
        if self.executor is not None and self.over is None:
            assert len(self.results) == len(self.names)


TestAnythingAtAnyTime = AnythingAtAnyTime.TestCase
TestAnythingAtAnyTime.settings = settings(max_examples=examples(40), stateful_step_count=60, deadline=None)
