"""The scheduler's rules one by one, then its promises on random layouts, sizes and failures."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from builders import RECIPE, STAGES, D, E, M, V, stages
from hypothesis import given, settings
from hypothesis import strategies as st
from tiers import examples

from ltx_dist.pipeline.recipe import Recipe, StageLabel, StageSpec
from ltx_dist.pipeline.work import Assignment, Completion, StageReport
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.planning.simulator import OrderRevision
from ltx_dist.scheduling.scheduler import Scheduler


def make_placement(
    *stages_of_workers: tuple[str, ...],
    max_queued: int = 2,
    residency: str = "resident",
    host_slots: int = 1,
    batch_size: int = 1,
) -> Placement:
    workers = tuple(
        Worker(f"w{index}", stages, "cpu", index, residency, host_slots=host_slots, batch_size=batch_size)
        for index, stages in enumerate(stages_of_workers)
    )
    return Placement(RECIPE, "test", workers, {D: max_queued, V: max_queued})


def end(assignment: Assignment) -> Completion:
    return Completion(assignment, 0.0, 0.0, StageReport(0.0))


def lose(scheduler: Scheduler, assignment: Assignment, *others: Assignment) -> None:
    """Let the worker die: its clips continue on other workers, if possible."""
    for lost in (assignment, *others):
        scheduler.retry(lost, stages(V if lost.stage == M else lost.stage, M))
    scheduler.remove_worker(assignment.worker_id)


def run_one_at_a_time(scheduler: Scheduler) -> list[tuple[str, str]]:
    """The order of work on one worker, each assignment ending before the next is chosen."""
    order = []
    while not scheduler.is_finished:
        (assignment,) = scheduler.schedule()
        order.append((assignment.stage, assignment.clips))
        scheduler.update(end(assignment))
    return order


def test_a_resident_worker_finishes_each_clip_before_the_next():
    scheduler = Scheduler(make_placement(STAGES))
    scheduler.add(["a", "b"], STAGES)
    assert run_one_at_a_time(scheduler) == [(E, "a"), (D, "a"), (V, "a"), (E, "b"), (D, "b"), (V, "b")]


def test_a_time_sliced_worker_works_in_waves_of_the_queue_bound():
    scheduler = Scheduler(make_placement(STAGES, max_queued=2, residency="time_sliced"))
    scheduler.add(["a", "b", "c"], STAGES)
    stages = [stage for stage, _ in run_one_at_a_time(scheduler)]
    assert stages == [E, E, D, D, V, V, E, D, V]


def test_downstream_work_comes_first():
    scheduler = Scheduler(make_placement((E, V), (D,)))
    scheduler.add(["a", "b", "c"], STAGES)
    (encode_a,) = scheduler.schedule()
    scheduler.update(end(encode_a))
    denoise_a, encode_b = sorted(scheduler.schedule(), key=lambda a: a.clips)
    scheduler.update(end(denoise_a))
    scheduler.update(end(encode_b))
    assert Assignment(("a",), V, "w0") in scheduler.schedule(), "w0 could encode c, and decodes a"


def test_queues_are_bounded_and_count_work_in_flight():
    scheduler = Scheduler(make_placement((E,), (D,), (V,), max_queued=1))
    scheduler.add(["a", "b", "c"], STAGES)
    (encode_a,) = scheduler.schedule()
    assert scheduler.schedule() == []
    scheduler.update(end(encode_a))
    denoise_a, encode_b = sorted(scheduler.schedule(), key=lambda a: a.clips)
    scheduler.update(end(encode_b))
    assert scheduler.schedule() == [], "b waits for the transformer, so c is not encoded yet"
    scheduler.update(end(denoise_a))
    assert sorted((a.clips, a.stage) for a in scheduler.schedule()) == [("a", V), ("b", D), ("c", E)]


def test_submission_order_decides_within_a_stage():
    scheduler = Scheduler(make_placement((E,), (E,), (D,), (V,), max_queued=9))
    scheduler.add(["a", "b", "c"], STAGES)
    encode_a, encode_b = scheduler.schedule()
    scheduler.update(end(encode_b))
    scheduler.update(end(encode_a))
    assert Assignment(("a",), D, "w2") in scheduler.schedule()


def test_a_failed_request_ends_alone():
    scheduler = Scheduler(make_placement(STAGES))
    scheduler.add(["a", "b"], STAGES)
    (assignment,) = scheduler.schedule()
    scheduler.fail(assignment)
    assert [request_id for _, request_id in run_one_at_a_time(scheduler)] == ["b"] * 3


def test_a_lost_workers_request_goes_to_the_front_of_its_queue():
    scheduler = Scheduler(make_placement((E, V), (D,), (D,), max_queued=9))
    scheduler.add(["a", "b", "c"], STAGES)
    for _ in range(3):
        for assignment in scheduler.schedule():
            if assignment.stage == E:
                scheduler.update(end(assignment))
    assert scheduler.num_queued(D) == 1
    lose(scheduler, Assignment(("a",), D, "w1"))
    scheduler.update(end(Assignment(("b",), D, "w2")))
    assert Assignment(("a",), D, "w2") in scheduler.schedule()


def test_a_retry_avoids_the_workers_it_failed_on_while_there_are_others():
    scheduler = Scheduler(make_placement(STAGES, STAGES))
    scheduler.add(["a"], STAGES)
    (first,) = scheduler.schedule()
    scheduler.retry(first, stages(E), avoid=frozenset({first.worker_id}))
    (second,) = scheduler.schedule()
    assert second.worker_id != first.worker_id
    scheduler.retry(second, stages(E), avoid=frozenset({"w0", "w1"}))
    assert len(scheduler.schedule()) == 1, "with none left to try, any will do"


def test_a_retry_waits_for_a_worker_that_it_need_not_avoid():
    scheduler = Scheduler(make_placement(STAGES))
    scheduler.add(["a"], STAGES)
    (encode,) = scheduler.schedule()
    scheduler.retry(encode, stages(E), avoid=frozenset({"w0"}))
    assert scheduler.schedule(expected={"w1"}) == []
    assert scheduler.schedule(expected={"w0"}) == [Assignment(("a",), E, "w0")], "for w0, which restarts"


def test_a_retry_comes_before_all_that_waits():
    scheduler = Scheduler(make_placement(STAGES))
    scheduler.add(["a", "b"], STAGES)
    (encode,) = scheduler.schedule()
    scheduler.retry(encode, stages(E), avoid=frozenset({"w9"}))
    assert scheduler.schedule() == [Assignment(("a",), E, "w0")]


def test_the_last_attempt_waits_for_a_fresh_worker_if_one_is_expected():
    scheduler = Scheduler(make_placement(STAGES, STAGES, host_slots=1))
    scheduler.add(["a", "b", "c"], STAGES)
    (a, b) = scheduler.schedule()
    scheduler.retry(a, stages(E), alone=True)
    scheduler.remove_worker(a.worker_id)
    scheduler.update(end(b))
    assert {x.clips for x in scheduler.schedule(expected={"w9"})} == {"b"}, "w1 is not fresh"
    scheduler.add_worker(Worker("w0", STAGES, "cpu"))
    assert scheduler.schedule() == [Assignment(("a",), E, "w0")]


def test_nothing_runs_beside_the_last_attempt_until_its_mp4_is_made():
    scheduler = Scheduler(make_placement(STAGES, host_slots=2))
    scheduler.add(["a", "b"], RECIPE.names)
    for _ in range(2):
        (assignment,) = scheduler.schedule()
        scheduler.update(end(assignment))
    (decode,) = scheduler.schedule()
    scheduler.retry(decode, stages(V, M), alone=True)
    assert scheduler.schedule() == [Assignment(("a",), V, "w0")]
    scheduler.update(end(Assignment(("a",), V, "w0")))
    assert scheduler.schedule() == [Assignment(("a",), M, "w0")], "b waits"
    assert scheduler.update(end(Assignment(("a",), M, "w0")))
    assert scheduler.schedule() == [Assignment(("b",), E, "w0")]


def test_a_worker_that_joins_is_used():
    scheduler = Scheduler(make_placement(STAGES))
    scheduler.add(["a", "b"], STAGES)
    assert len(scheduler.schedule()) == 1
    scheduler.add_worker(Worker("new", STAGES, "cpu"), {D: 4, V: 4})
    assert scheduler.schedule() == [Assignment(("b",), E, "new")]


def test_a_stage_without_workers_is_told_and_its_requests_stay_open():
    scheduler = Scheduler(make_placement((E,), (D,), (V,)))
    scheduler.add(["a", "b"], STAGES)
    (encode_a,) = scheduler.schedule()
    scheduler.update(end(encode_a))
    assert scheduler.unhosted_stage is None
    for assignment in scheduler.schedule():
        if assignment.stage == D:
            lose(scheduler, assignment)
        else:
            scheduler.update(end(assignment))
    assert scheduler.schedule() == [] and scheduler.num_in_flight == 0
    assert scheduler.unhosted_stage == D and not scheduler.is_finished


def test_a_request_whose_input_is_lost_begins_again():
    scheduler = Scheduler(make_placement(STAGES))
    scheduler.add(["a"], STAGES)
    (encode,) = scheduler.schedule()
    scheduler.update(end(encode))
    (denoise,) = scheduler.schedule()
    scheduler.retry(denoise, stages(E))
    assert scheduler.schedule() == [encode]


def test_an_assignment_ends_once():
    scheduler = Scheduler(make_placement(STAGES))
    scheduler.add(["a"], STAGES)
    (assignment,) = scheduler.schedule()
    scheduler.update(end(assignment))
    with pytest.raises(AssertionError, match="not in flight"):
        scheduler.update(end(assignment))


def decoded(scheduler: Scheduler) -> Assignment:
    """Run the next clip on a single worker to the end of its decode. Returns its ENCODE_VIDEO, now in flight."""
    for _ in STAGES:
        (assignment,) = scheduler.schedule()
        scheduler.update(end(assignment))
    (video, *_) = scheduler.schedule()
    assert video.stage == M
    return video


def test_a_device_goes_on_while_its_host_makes_the_mp4():
    scheduler = Scheduler(make_placement(STAGES, host_slots=1))
    scheduler.add(["a", "b"], RECIPE.names)
    for _ in STAGES:
        (assignment,) = scheduler.schedule()
        assert not scheduler.update(end(assignment))
    assert scheduler.schedule() == [Assignment(("a",), M, "w0"), Assignment(("b",), E, "w0")]
    assert scheduler.update(end(Assignment(("a",), M, "w0"))), "that was its last stage"


def test_no_decode_begins_while_all_host_slots_are_taken():
    scheduler = Scheduler(make_placement((E, D), (V,), host_slots=1))
    scheduler.add(["a", "b", "c"], RECIPE.names)
    for request_id in "ab":
        for stage in (E, D):
            scheduler.schedule()
            scheduler.update(end(Assignment((request_id,), stage, "w0")))
    scheduler.schedule()
    scheduler.update(end(Assignment(("a",), V, "w1")))
    assert Assignment(("a",), M, "w1") in scheduler.schedule()
    assert scheduler.num_queued(V) == 1, "b waits for the slot"
    scheduler.update(end(Assignment(("a",), M, "w1")))
    assert Assignment(("b",), V, "w1") in scheduler.schedule()


def test_frames_that_are_lost_with_their_worker_are_decoded_again():
    scheduler = Scheduler(make_placement(STAGES, (V,), host_slots=2))
    scheduler.add(["a"], RECIPE.names)
    for stage in (E, D):
        scheduler.schedule()
        scheduler.update(end(Assignment(("a",), stage, "w0")))
    (decode,) = scheduler.schedule()
    scheduler.update(end(decode))
    (video,) = scheduler.schedule()
    lose(scheduler, video)
    (again,) = scheduler.schedule()
    assert again.stage == V and again.worker_id != video.worker_id


@dataclass
class Speeds:
    """Costs set by hand: one rate per device, and one work per request."""

    speed: dict[str, float]
    clips: dict[str, float] = field(default_factory=dict)

    def work(self, request_id, stage):
        return self.clips.get(request_id, 1.0)

    def rate(self, worker, stage):
        return self.speed.get(worker.device_name, 1.0)

    def swap_seconds(self, worker, stage):
        return 0.0

    def observe(self, completion, worker):
        return False


LABEL = StageLabel("X", "x", "x", "#000000")


@st.composite
def random_recipes(draw: st.DrawFn) -> Recipe:
    """Two to five device stages, some optional, some on the same components; up to two host stages at each place."""
    specs: list[StageSpec] = []
    for number in range(draw(st.integers(2, 5))):
        shared = draw(st.sampled_from(["own", "first"]))
        specs.append(
            StageSpec(
                f"device{number}", "op", LABEL, (f"component{number if shared == 'own' else 0}",),
                shares_pass=draw(st.booleans()), only_with=draw(st.sampled_from(["", "x"])),
                share=draw(st.floats(0, 1)),
            )
        )  # fmt: skip
        places = st.sampled_from([0, 0, 1, 2])
        specs += [
            StageSpec(f"host{number}{i}", "op", LABEL, runs_on="host", only_with="x" if draw(st.booleans()) else "")
            for i in range(draw(places))
        ]
    return Recipe("random", tuple(specs))


@st.composite
def random_batches(draw: st.DrawFn) -> tuple[Placement, int, float, float, random.Random]:
    recipe = draw(random_recipes())
    some_stages = st.lists(st.sampled_from(recipe.on_device), min_size=1, unique=True).map(recipe.ordered)
    hosted = draw(st.lists(some_stages, min_size=1, max_size=6))
    missing = recipe.ordered(set(recipe.on_device) - {stage for stages in hosted for stage in stages})
    hosted += [missing] if missing else []
    devices = draw(st.sampled_from([["cpu"], ["fast", "cpu", "slow"]]))
    batch_size = draw(st.integers(1, 4))
    workers = tuple(
        Worker(
            f"w{i}", stages, "cpu", i, draw(st.sampled_from(["resident", "time_sliced"])), batch_size=batch_size,
            host_slots=draw(st.integers(1, 2)), device_name=draw(st.sampled_from(devices)),
        )
        for i, stages in enumerate(hosted)
    )  # fmt: skip
    bounds = {stage: draw(st.integers(1, 6)) for stage in recipe.on_device[1:]}
    failures, losses = draw(st.sampled_from([(0.0, 0.0), (0.2, 0.0), (0.1, 0.1)]))
    rng = random.Random(draw(st.integers(0, 2**32)))
    return Placement(recipe, "random", workers, bounds), draw(st.integers(0, 25)), failures, losses, rng


def random_todo(recipe: Recipe, rng: random.Random) -> tuple[str, ...]:
    """A subset of the stages that begins on a device: an earlier part may be made, and others not asked for."""
    names = [name for name in recipe.names if rng.random() < 0.7]
    while names and recipe[names[0]].runs_on == "host":
        names.pop(0)
    return tuple(names) or recipe.on_device[-1:]


def to_do_again(todo: tuple[str, ...], stage: str, recipe: Recipe) -> tuple[str, ...]:
    """It restarts at the stage that failed or, if that is a host stage, at the device stage before it."""
    position = todo.index(stage)
    while recipe[todo[position]].runs_on == "host":
        position -= 1
    return todo[position:]


@settings(max_examples=examples(1000), deadline=None)
@given(random_batches())
def test_every_request_ends_exactly_once_within_the_bounds(batch):
    """Random recipes, subsets of their stages, layouts, speeds, passes, failures and orders of completion: no deadlock,
    bounds kept, only requests alike in a pass, one terminal result each while every stage has a worker, and no worker
    idle while it has eligible work."""
    placement, num_requests, failure_rate, loss_rate, rng = batch
    recipe = placement.recipe
    todo = {f"r{index}": random_todo(recipe, rng) for index in range(num_requests)}
    kinds = {name: rng.choice("abc") for name in todo}
    scheduler = Scheduler(
        placement,
        Speeds({"fast": 5.0, "slow": 0.2}, {f"r{i}": rng.uniform(0.1, 9) for i in range(25)}),
        lambda stage, name: kinds[name],
    )
    for name, left in todo.items():
        scheduler.add([name], left)
    running: list[Assignment] = []
    ended: list[str] = []
    num_lost = num_requests  # those that begin at a later stage may fill its queue, too
    hosted = {worker.worker_id: worker.stages for worker in placement.workers}
    while not scheduler.is_finished:
        new = scheduler.schedule()
        if not running and not new:
            assert scheduler.unhosted_stage is not None, "stalled"
            break
        for assignment in new:
            stage = recipe[assignment.stage]
            assert stage.runs_on == "host" or stage.name in hosted[assignment.worker_id]
            most = placement.workers[0].batch_size if stage.shares_pass and stage.runs_on == "device" else 1
            assert 1 <= len(assignment.request_ids) <= most
            assert len({kinds[name] for name in assignment.request_ids}) == 1, "only requests alike share a pass"
        running += new
        assert scheduler.schedule() == [], "a second look finds no more work"
        if rng.random() < 0.1:
            rest = list(scheduler.waiting())
            rng.shuffle(rest)
            scheduler.reorder(rest, upstream_first=rng.random() < 0.5)
            assert list(scheduler.waiting()) == rest
        names = [name for a in running for name in a.request_ids]
        assert len(set(names)) == len(names), "a request is in one place at a time"
        on_devices = [a for a in running if a.stage in recipe.on_device]
        assert len({a.worker_id for a in on_devices}) == len(on_devices), "a device runs one assignment at a time"
        on_hosts = Counter(a.worker_id for a in running if a.stage not in recipe.on_device)
        assert all(on_hosts[worker.worker_id] <= worker.host_slots for worker in placement.workers)
        for stage in recipe.on_device[1:]:
            assert scheduler.num_queued(stage) <= placement.max_queued[stage] + num_lost
        assignment = running.pop(rng.randrange(len(running)))
        if rng.random() < loss_rate:
            lost = [assignment, *(other for other in running if other.worker_id == assignment.worker_id)]
            num_lost += sum(len(one.request_ids) for one in lost)
            running = [other for other in running if other.worker_id != assignment.worker_id]
            for one in lost:
                for part in one.parts:
                    scheduler.retry(part, to_do_again(todo[part.request_ids[0]], part.stage, recipe))
            scheduler.remove_worker(assignment.worker_id)
        elif rng.random() < failure_rate + loss_rate:
            for part in assignment.parts:  # each continues by itself
                if rng.random() < failure_rate:
                    scheduler.fail(part)
                    ended += part.request_ids
                    continue
                num_lost += 1
                whole = todo[part.request_ids[0]]
                again = rng.choice([whole, to_do_again(whole, part.stage, recipe)])
                avoid = frozenset({part.worker_id}) if rng.random() < 0.5 else frozenset()
                scheduler.retry(part, again, avoid, rng.random() < 0.5, rng.random() < 0.5)
        elif scheduler.update(end(assignment)):
            ended += assignment.request_ids
    assert len(set(ended)) == len(ended) and set(ended) <= set(todo), "one terminal result each"
    assert not running
    if scheduler.is_finished:
        assert sorted(ended) == sorted(todo), "none is left while every stage has its workers"


@settings(max_examples=examples(300), deadline=None)
@given(random_batches())
def test_queues_stay_within_their_bounds_when_nothing_fails(batch):
    """For requests with all device stages of their recipe, what waits and what is on its way fits in each queue."""
    placement, num_requests, _, _, rng = batch
    recipe = placement.recipe
    scheduler = Scheduler(placement, Speeds({"fast": 5.0, "slow": 0.2}))
    scheduler.add((f"r{index}" for index in range(num_requests)), recipe.names)
    running: list[Assignment] = []
    while not scheduler.is_finished:
        running += scheduler.schedule()
        for stage, following in pairwise(recipe.on_device):
            coming = {stage, *recipe.host_stages_after(stage)}
            in_flight = sum(len(a.request_ids) for a in running if a.stage in coming)
            assert scheduler.num_queued(following) + in_flight <= placement.max_queued[following]
        scheduler.update(end(running.pop(rng.randrange(len(running)))))


def mixed(*workers: tuple[str, tuple[str, ...]]) -> Placement:
    """Workers by (device, stages)."""
    made = tuple(Worker(f"w{i}", stages, "cuda", i, device_name=device) for i, (device, stages) in enumerate(workers))
    return Placement(RECIPE, "elastic", made, {D: 2 * len(made), V: 2 * len(made)})


def test_a_slow_card_leaves_the_last_clip_to_a_fast_one():
    scheduler = Scheduler(mixed(("fast", STAGES), ("slow", STAGES)), Speeds({"fast": 10.0, "slow": 1.0}))
    scheduler.add(["a", "b"], STAGES)
    assert [(a.clips, a.worker_id) for a in scheduler.schedule()] == [("a", "w0")]
    many = Scheduler(mixed(("fast", STAGES), ("slow", STAGES)), Speeds({"fast": 10.0, "slow": 1.0}))
    many.add(map(str, range(40)), STAGES)
    assert len(many.schedule()) == 2, "it takes one where there is enough for both"


def test_a_card_that_can_only_decode_gets_the_decodes():
    scheduler = Scheduler(mixed(("big", STAGES), ("small", (V,))), Speeds({}))
    scheduler.add(["a", "b", "c"], STAGES)
    for _ in (E, D):
        (assignment, *_) = scheduler.schedule()
        scheduler.update(end(assignment))
    assert Assignment(("a",), V, "w1") in scheduler.schedule()


def test_workers_that_cannot_encode_are_fed_before_anything_is_decoded():
    scheduler = Scheduler(make_placement((E, V), (D,), (D,), max_queued=9))
    scheduler.add(list("abcde"), STAGES)
    ran: list[tuple[str, str]] = []
    while len(ran) < 4:
        for assignment in scheduler.schedule():
            if assignment.worker_id == "w0":
                ran.append((assignment.stage, assignment.clips))
                scheduler.update(end(assignment))
            elif assignment.clips == "a":
                scheduler.update(end(assignment))
    assert ran == [(E, "a"), (E, "b"), (E, "c"), (E, "d")], "two wait for two transformers before the decode of a"


def test_what_waits_exchanges_places_and_nothing_else_moves():
    scheduler = Scheduler(make_placement((E,), (D,), (V,), max_queued=9))
    scheduler.add(list("abcdef"), STAGES)
    (encode_a,) = scheduler.schedule()
    assert list(scheduler.waiting()) == list("bcdef") and list(scheduler.running()) == [encode_a]
    scheduler.reorder(["f", "d", "b"])
    assert list(scheduler.waiting()) == ["f", "c", "d", "e", "b"]
    scheduler.update(end(encode_a))
    assert {a.clips for a in scheduler.schedule()} == {"a", "f"}


def test_first_stages_come_first_while_there_is_room_and_until_requests_are_added():
    scheduler = Scheduler(make_placement(STAGES, max_queued=2))
    scheduler.add(list("abc"), STAGES)
    scheduler.reorder((), upstream_first=True)
    assert run_one_at_a_time(scheduler) == [
        (E, "a"), (E, "b"), (D, "a"), (V, "a"), (E, "c"), (D, "b"), (V, "b"), (D, "c"), (V, "c"),
    ], "a decode is not put off: its mp4 is made meanwhile"  # fmt: skip
    scheduler.add(list("de"), STAGES)
    assert run_one_at_a_time(scheduler) == [(E, "d"), (D, "d"), (V, "d"), (E, "e"), (D, "e"), (V, "e")]


def test_first_stages_come_first_only_until_workers_change():
    scheduler = Scheduler(make_placement(STAGES, STAGES))
    changes = (
        lambda: scheduler.change_worker(scheduler.worker("w0")),
        lambda: scheduler.remove_worker("w1"),
        lambda: scheduler.add_worker(Worker("late", STAGES, "cpu", 2)),
    )
    for change in changes:
        scheduler.reorder((), upstream_first=True)
        assert scheduler.upstream_first
        change()
        assert not scheduler.upstream_first


def test_an_order_is_due_once_there_is_something_new():
    scheduler, order = Scheduler(make_placement(STAGES, STAGES)), OrderRevision()
    assert order.is_due(scheduler) and not order.is_due(scheduler)
    scheduler.add(list("abcd"), STAGES)
    assert order.is_due(scheduler) and not order.is_due(scheduler)
    scheduler.add_worker(Worker("late", STAGES, "cpu", 2))
    assert order.is_due(scheduler) and not order.is_due(scheduler)
    scheduler.remove_worker("late")
    assert order.is_due(scheduler)
    halved = []
    while not scheduler.is_finished:
        for assignment in scheduler.schedule():
            scheduler.update(end(assignment))
            halved.append(order.is_due(scheduler))
    assert [done for done, due in enumerate(halved, start=1) if due] == [7, 10, 12], "of 12 passes"


def test_a_worker_that_joins_gets_work_at_once():
    placement = make_placement(STAGES)
    scheduler = Scheduler(placement)
    scheduler.add(["a", "b"], STAGES)
    assert len(scheduler.schedule()) == 1
    scheduler.add_worker(Worker("late", STAGES, "cpu", 1), {D: 5, V: 5})
    assert scheduler.schedule() == [Assignment(("b",), E, "late")]


def shape_of(stage: str, request_id: str) -> str:
    return request_id[0]


def started(scheduler: Scheduler) -> list[tuple[str, ...]]:
    return [assignment.request_ids for assignment in scheduler.schedule()]


def test_requests_that_are_alike_share_a_pass_and_others_wait_their_turn():
    scheduler = Scheduler(make_placement(STAGES, max_queued=9, batch_size=3), batch_key=shape_of)
    scheduler.add(["a1", "b1", "a2", "a3", "a4"], STAGES)
    order = run_one_at_a_time(scheduler)
    assert order[:4] == [(E, "a1 and 2 more"), (D, "a1 and 2 more"), (V, "a1"), (V, "a2")], "decoded one by one"
    assert [clips for stage, clips in order if stage == D] == ["a1 and 2 more", "b1", "a4"]


def test_no_pass_is_shared_while_there_are_idle_workers_for_each():
    scheduler = Scheduler(make_placement(*[STAGES] * 4, max_queued=9, batch_size=4))
    scheduler.add(["a", "b", "c", "d"], STAGES)
    assert started(scheduler) == [("a",), ("b",), ("c",), ("d",)]
    scheduler = Scheduler(make_placement(*[STAGES] * 4, max_queued=99, batch_size=4))
    scheduler.add(map(str, range(10)), STAGES)
    assert list(map(len, started(scheduler))) == [3, 3, 2, 2]


def test_at_the_end_every_worker_has_its_part():
    scheduler = Scheduler(make_placement((D,), (D,), (V,), max_queued=99, batch_size=4))
    scheduler.add(["a"], stages(D))
    (first,) = scheduler.schedule()
    scheduler.add(["b", "c", "d", "e", "f"], stages(D))
    (second,) = scheduler.schedule()
    assert second.request_ids == ("b", "c", "d"), "the worker that is busy now will want some of five"
    scheduler.update(end(first))
    assert [a.request_ids for a in scheduler.schedule() if a.stage == D] == [("e", "f")]


def test_a_shared_pass_has_room_for_all_its_outputs():
    scheduler = Scheduler(make_placement((E,), (D,), (V,), max_queued=2, batch_size=4))
    scheduler.add(["a", "b", "c", "d"], STAGES)
    assert started(scheduler) == [("a", "b")]


def test_nothing_waits_for_company():
    scheduler = Scheduler(make_placement((E,), (D,), (V,), max_queued=9, batch_size=4))
    scheduler.add(["a"], STAGES)
    (encode,) = scheduler.schedule()
    scheduler.update(end(encode))
    scheduler.add(["b"], STAGES)
    assert sorted(started(scheduler)) == [("a",), ("b",)]


def test_a_slow_card_shares_no_more_than_it_ends_in_time():
    placement = mixed(("fast", STAGES), ("slow", STAGES))
    workers = tuple(replace(worker, batch_size=8) for worker in placement.workers)
    placement = Placement(RECIPE, "elastic", workers, {D: 99, V: 99})
    scheduler = Scheduler(placement, Speeds({"fast": 10.0, "slow": 1.0}))
    scheduler.add(map(str, range(40)), STAGES)
    assert list(map(len, started(scheduler))) == [8, 4], "in 40 / 10 seconds the fast one would have ended all"


def test_the_parts_of_a_pass_end_each_in_its_way_and_the_worker_is_idle_after_the_last():
    scheduler = Scheduler(make_placement(STAGES, max_queued=9, batch_size=3))
    scheduler.add(["a", "b", "c"], STAGES)
    (encode,) = scheduler.schedule()
    a, b, c = encode.parts
    scheduler.fail(a)
    scheduler.retry(b, stages(E), shares=False)
    assert scheduler.schedule() == [], "c is still there"
    scheduler.retry(c, stages(E))
    assert started(scheduler) == [("b",)], "what is not to share comes first, and alone"
    with pytest.raises(AssertionError, match="not in flight"):
        scheduler.fail(c)


def test_a_new_order_holds_in_every_kind():
    scheduler = Scheduler(make_placement(STAGES, max_queued=9, batch_size=2), batch_key=shape_of)
    scheduler.add(["a1", "b1", "a2", "b2", "a3", "b3"], STAGES)
    scheduler.reorder(["b3", "a3", "b2", "a2", "b1", "a1"])
    assert [clips for stage, clips in run_one_at_a_time(scheduler) if stage == E] == [
        "b3 and 1 more", "a3 and 1 more", "b1", "a1",
    ]  # fmt: skip
