"""Layouts, orders and advice: what the planner chooses for devices and batches whose best plan is known."""

from __future__ import annotations

import pytest
from builders import RECIPE, STAGES, WEIGHTS, D, V, stages, todo
from builders import predicted as predicted_costs

from ltx_dist.estimates.costs import PredictedCosts, Work
from ltx_dist.models.ltx_video.estimates import STAGE_RATES
from ltx_dist.models.ltx_video.recipes import RECIPE as TWO_PASSES
from ltx_dist.pipeline.timeline import makespan
from ltx_dist.pipeline.work import Assignment, Completion, StageReport
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.placement.fitting import BatchDemand, Models
from ltx_dist.placement.inventory import DeviceInfo, Inventory
from ltx_dist.placement.placement import Wishes, place
from ltx_dist.planning.order_search import better_orders
from ltx_dist.planning.ordering import AS_GIVEN, WORTH_IT, best_order
from ltx_dist.planning.planner import advice, forecast, forecasts
from ltx_dist.planning.simulator import predict, simulate
from ltx_dist.scheduling.scheduler import Scheduler

GIB = 2**30
DEMAND = BatchDemand(Models(RECIPE, WEIGHTS))
FULL = (1.19e12, 24e12 * 80, 52e12)
DISTILLED = (1.19e12, 24e12 * 8, 52e12)


def gpu(name: str, gib: float) -> DeviceInfo:
    return DeviceInfo(f"NVIDIA {name}", int(gib * GIB))


def costs(works) -> PredictedCosts:
    return predicted_costs({f"r{i:03}": work for i, work in enumerate(works)})


def plan(gpus, works, **wishes):
    predicted = costs(works)
    return forecasts(Wishes(**wishes), Inventory(tuple(gpus), 16), DEMAND, todo(predicted.work_of), predicted)


def test_elastic_hosts_what_fits_each_device_and_every_stage_somewhere():
    mixed = Inventory((gpu("H100", 80), gpu("RTX 4000", 14), gpu("GTX 1650", 5)), 16)
    hosted = [worker.stages for worker in place(Wishes(layout="elastic"), mixed, DEMAND).workers]
    assert hosted == [STAGES, (D, V), (D,)]
    small = place(Wishes(layout="elastic"), Inventory((gpu("a", 12), gpu("b", 12), gpu("c", 24)), 16), DEMAND)
    assert {stage for worker in small.workers for stage in worker.stages} == set(STAGES)
    (alone,) = place(Wishes(layout="elastic"), Inventory((gpu("a", 12),), 16), DEMAND).workers
    assert (alone.stages, alone.residency) == (STAGES, "time_sliced")


def test_two_large_cards_all_do_everything_and_come_close_to_twice_one():
    one = plan([gpu("H100", 80)], [FULL] * 32)[0]
    best, *others = plan([gpu("H100", 80)] * 2, [FULL] * 32)
    assert best.placement.layout == "replicated"
    assert one.seconds / best.seconds >= 0.95 * 2
    assert {other.placement.layout for other in others} == {"pinned"} and others[0].seconds > 1.8 * best.seconds


def test_the_shortest_layout_is_taken_unless_a_plainer_one_is_as_good():
    for gpus in ([gpu("GeForce RTX 4090", 16)] * 2, [gpu("GeForce RTX 3060", 12)] * 3, [gpu("A100", 40)] * 4):
        best, *others = plan(gpus, [DISTILLED] * 24)
        assert others and best.seconds <= min(other.seconds for other in others) / 0.99


def test_a_wish_for_a_layout_is_the_only_one_planned():
    assert [one.placement.layout for one in plan([gpu("H100", 80)] * 3, [FULL] * 4, layout="pinned")] == ["pinned"]


def test_the_long_pole_is_named():
    pinned = plan([gpu("GeForce RTX 4090", 24)] * 4, [(1e12, 24e12, 52e12)] * 32, layout="pinned")[0]
    assert pinned.bound.by == "decode"
    assert advice(pinned).startswith("The bottleneck is the VAE: let one more device run it (cuda:")
    assert "longest clip" in advice(plan([gpu("H100", 80)] * 4, [FULL])[0])
    assert advice(plan([gpu("H100", 80)] * 4, [FULL] * 6)[0]).startswith("Too few clips to keep every device busy")
    assert "more or faster devices" in advice(plan([gpu("H100", 80)] * 2, [FULL] * 64)[0])


def test_equal_requests_keep_the_order_of_submission():
    predicted = costs([FULL] * 20)
    placement = place(Wishes(layout="pinned"), Inventory((gpu("H100", 80),) * 4, 16), DEMAND)
    ordered = best_order(placement, todo(predicted.work_of), predicted)
    assert (ordered.name, list(ordered.request_ids)) == (AS_GIVEN, list(predicted.work_of))


def test_every_order_is_of_the_same_requests_and_stable_for_equal_ones():
    predicted = costs([FULL if i % 3 else DISTILLED for i in range(31)])
    placement = place(Wishes(layout="pinned"), Inventory((gpu("H100", 80),) * 4, 16), DEMAND)
    ordered = best_order(placement, todo(predicted.work_of), predicted)
    assert sorted(ordered.request_ids) == sorted(predicted.work_of)
    for kind in (FULL, DISTILLED):
        of_kind = [name for name in ordered.request_ids if predicted.work_of[name] == kind]
        assert of_kind == sorted(of_kind)


def test_the_order_is_worth_what_the_simulation_says():
    """A long clip at the end of the file keeps one of two devices busy alone; if taken earlier, it does not."""
    predicted = costs([DISTILLED] * 12 + [FULL])
    placement = place(Wishes(), Inventory((gpu("H100", 80),) * 2, 16), DEMAND)
    ids = list(predicted.work_of)
    ordered = best_order(placement, todo(ids), predicted)
    assert ordered.request_ids.index(ids[-1]) <= 5
    assert ordered.seconds < 0.8 * forecast_in_file_order(placement, ids, predicted)


def forecast_in_file_order(placement, ids, predicted) -> float:
    return makespan(list(predict(placement, todo(ids), predicted)))


def test_what_clips_take_corrects_the_prediction_and_asks_for_a_new_plan():
    predicted = costs([FULL] * 4)
    worker = place(Wishes(), Inventory((gpu("GeForce RTX 4090", 80),), 16), DEMAND).workers[0]
    before = predicted.work("r000", D) / predicted.rate(worker, D)
    assert before == pytest.approx(80 * 24 / 97.35, rel=1e-3), "80 passes at the 97 TFLOP/s that were measured"
    seen = Completion(Assignment(("r000",), D, worker.worker_id), 0.0, 0.0, StageReport(2 * before))
    assert predicted.observe(seen, worker) and not predicted.observe(seen, worker)
    assert predicted.work("r001", D) / predicted.rate(worker, D) == pytest.approx(2 * before)
    assert predicted.work("r001", V) / predicted.rate(worker, V) == pytest.approx(52 / (165 * 0.35))
    assert predicted.learned() == {("NVIDIA GeForce RTX 4090", D): pytest.approx(2.0)}


def test_a_device_that_was_not_seen_is_taken_to_be_off_as_the_others_are():
    predicted = costs([FULL] * 2)
    seen, other = place(Wishes(), Inventory((gpu("GeForce RTX 4090", 80), gpu("H100", 80)), 16), DEMAND).workers
    before = predicted.rate(other, D)
    predicted.observe(done("r000", D, seen.worker_id, 3 * FULL[1] / predicted.rate(seen, D)), seen)
    assert predicted.rate(other, D) == pytest.approx(before / 3)
    predicted.observe(done("r001", D, other.worker_id, 2 * FULL[1] / before), other)
    assert predicted.rate(other, D) == pytest.approx(before / 2)


def done(request_id: str, stage: str, worker_id: str, seconds: float) -> Completion:
    return Completion(Assignment((request_id,), stage, worker_id), 0.0, seconds, StageReport(seconds))


def drifting(slower: float) -> tuple[float, float]:
    """Makespans of a batch whose decodes take `slower` times the prediction: in the first order, and reordered."""
    placement = place(Wishes(layout="pinned"), Inventory((gpu("H100", 80),) * 8, 16), DEMAND)
    works = [(1e12, 24e12 * (8 + 30 * (i % 2)), 52e12 * (1 + i % 3)) for i in range(24)]
    workers = {worker.worker_id: worker for worker in placement.workers}

    def run(reorders: bool) -> float:
        predicted = costs(works)
        truth = costs(works)

        def takes(assignment: Assignment) -> float:
            seconds = truth.work(assignment.clips, assignment.stage)
            seconds /= truth.rate(workers[assignment.worker_id], assignment.stage)
            return seconds * (slower if assignment.stage == V else 1.0)

        order = best_order(placement, todo(predicted.work_of), predicted).request_ids
        reorder = (lambda scheduler: better_orders(scheduler, placement.workers, predicted)) if reorders else None
        completions = list(simulate(placement, todo(order), takes, predicted, reorder=reorder))
        assert len(completions) == 3 * len(works)
        return makespan(completions)

    return run(False), run(True)


def test_a_batch_is_put_in_another_order_when_costs_drift():
    as_begun, reordered = drifting(slower=0.3)
    assert reordered < 0.95 * as_begun
    as_begun, reordered = drifting(slower=1.0)
    assert as_begun * 0.9 < reordered <= as_begun, "nothing has drifted: the search alone"


def begun_on(
    num_devices: int, works: list[Work], layout: str = "pinned"
) -> tuple[Scheduler, Placement, PredictedCosts]:
    predicted = costs(works)
    placement = place(Wishes(layout=layout), Inventory((gpu("H100", 80),) * num_devices, 16), DEMAND)
    scheduler = Scheduler(placement, predicted)
    scheduler.add(predicted.work_of, STAGES)
    return scheduler, placement, predicted


def test_there_is_no_order_to_look_for_while_a_stage_has_no_worker():
    scheduler, placement, predicted = begun_on(3, [FULL, DISTILLED, FULL])
    scheduler.remove_worker("cuda:1")
    assert list(better_orders(scheduler, placement.workers, predicted)) == []


def test_nor_among_equal_requests():
    scheduler, placement, predicted = begun_on(3, [FULL] * 30)
    assert list(better_orders(scheduler, placement.workers, predicted)) == []


def test_what_was_given_out_since_is_not_moved():
    lengths = [5, 4, 3, 9, 7, 8, 2, 6, 11, 3, 10, 4, 7, 5, 29]
    works = [(1e12, 24e12 * length, 13e12) for length in lengths * 2]
    scheduler, placement, predicted = begun_on(3, works, "replicated")
    looking = better_orders(scheduler, placement.workers, predicted)
    first = next(order for order in looking if order)
    scheduler.reorder(*first)
    given_out = {assignment.clips for assignment in scheduler.schedule()}
    later = [order for order in looking if order]
    assert given_out and later
    for order in later:
        moved = {name for name, then in zip(order.request_ids, first.request_ids, strict=True) if name != then}
        assert moved and not moved & given_out


def test_orders_are_looked_for_in_pieces_and_each_is_better_than_the_one_before():
    """A long clip at the end, and lengths that no rule divides evenly among three devices."""
    lengths = [5, 4, 3, 9, 7, 8, 2, 6, 11, 3, 10, 4, 7, 5, 29]
    works = [(1e12, 24e12 * length, 13e12) for length in lengths * 2]
    scheduler, placement, predicted = begun_on(3, works, "replicated")
    found = list(better_orders(scheduler, placement.workers, predicted))
    orders = [order.request_ids for order in found if order]
    assert len(orders) > 1 and found.count(None) >= len(orders) + 4, "a pause after every prediction"
    assert all(sorted(order) == sorted(predicted.work_of) for order in orders)
    seconds = [forecast_in_file_order(placement, order, predicted) for order in orders]
    assert seconds == sorted(seconds, reverse=True) and seconds[-1] < seconds[0]
    assert seconds[0] < forecast_in_file_order(placement, list(predicted.work_of), predicted) * (1 - WORTH_IT)
    bound = forecast(placement, todo(predicted.work_of), predicted).bound.seconds
    assert seconds[-1] < 1.01 * bound
    for work in set(works):
        alike = [name for name in orders[-1] if predicted.work_of[name] == work]
        assert alike == sorted(alike), "those that cost the same come in the order of submission"


@pytest.mark.parametrize("layout", ["pinned", "replicated"])
def test_nor_once_some_of_them_are_further_than_others(layout: str):
    scheduler, placement, predicted = begun_on(3, [FULL] * 30, layout)
    for _ in range(8):
        for assignment in scheduler.schedule():
            scheduler.update(done(assignment.clips, assignment.stage, assignment.worker_id, 1.0))
    assert len(set(scheduler.waiting().values())) > 1
    assert list(better_orders(scheduler, placement.workers, predicted)) == []


def test_nor_for_one_worker():
    scheduler, placement, predicted = begun_on(1, [FULL, DISTILLED] * 10, "shared")
    assert list(better_orders(scheduler, placement.workers, predicted)) == []


def test_of_a_long_batch_some_stand_for_all(monkeypatch: pytest.MonkeyPatch):
    """Long denoises and long decodes alternate: what is left out must be alike in every order."""
    monkeypatch.setattr("ltx_dist.planning.ordering.MAX_SIMULATED", 100)
    monkeypatch.setattr("ltx_dist.planning.order_search.MAX_SEARCHED", 100)
    works = [(1e12, 24e12 * 30, 13e12) if i % 2 else (1e12, 24e12 * 3, 130e12) for i in range(200)]
    scheduler, placement, predicted = begun_on(5, works)
    as_submitted = forecast_in_file_order(placement, list(predicted.work_of), predicted)
    orders = [order.request_ids for order in better_orders(scheduler, placement.workers, predicted) if order]
    assert orders
    for order in orders:
        assert len(order) == 200
        assert forecast_in_file_order(placement, order, predicted) < as_submitted
    ordered = best_order(placement, todo(predicted.work_of), predicted)
    whole = forecast_in_file_order(placement, list(ordered.request_ids), predicted)
    assert 0.9 * whole < ordered.seconds < 1.1 * whole


def test_what_is_under_way_stays_where_it_is():
    """The first two share a long pass on a slow card; meanwhile, the fast card does all the rest."""
    predicted = costs([FULL] * 3 + [DISTILLED] * 10)
    placement = place(Wishes(), Inventory((gpu("H100", 80), gpu("GeForce RTX 3090", 80)), 16), DEMAND)
    fast, slow = placement.workers
    running = {Assignment(("r000", "r001"), D, slow.worker_id): 300.0, Assignment(("r002",), D, fast.worker_id): 1.0}
    begun = {name: stages(D) for name in ("r000", "r001", "r002")}
    waiting = todo(list(predicted.work_of)[3:])
    completions = list(predict(placement, begun | waiting, predicted, running=running))
    first, *_, last = completions
    assert (first.assignment, first.finished) == (Assignment(("r002",), D, fast.worker_id), 1.0)
    long = next(c for c in completions if len(c.assignment.request_ids) == 2)
    assert (long.assignment.worker_id, long.finished) == (slow.worker_id, 300.0) and last.finished > 300
    others = [c for c in completions if c.finished < 300]
    assert {c.assignment.worker_id for c in others} == {fast.worker_id} and len(others) == 3 * 10 + 2
    assert len(completions) == len(others) + 1 + 2, "two decodes after the shared pass"


def test_an_order_is_taken_up_while_the_batch_goes_on():
    """Clips that were assigned during the search stay in place; the rest follow the order that was found."""
    scheduler, placement, predicted = begun_on(2, [DISTILLED] * 12 + [FULL], "replicated")
    looked_for = better_orders(scheduler, placement.workers, predicted)
    next(looked_for)
    first, second = scheduler.schedule()
    *_, last = (order.request_ids for order in looked_for if order)
    scheduler.reorder(last)
    ids = list(predicted.work_of)
    assert {first.clips, second.clips} == set(ids[:2])
    assert list(scheduler.waiting()) == [name for name in last if name not in ids[:2]] != ids[2:]


def two_passes(num_clips: int, num_devices: int) -> tuple[float, float]:
    """Makespans of equal clips with two passes of 10 s: with every clip made to its end, and in the order found."""
    order = "encode_text", "denoise", "refine", "decode"
    workers = tuple(Worker(f"w{index}", order, "cuda", index) for index in range(num_devices))
    placed = Placement(TWO_PASSES, "replicated", workers, dict.fromkeys(TWO_PASSES.on_device[1:], 2 * num_devices))
    table = PredictedCosts(TWO_PASSES, {}, STAGE_RATES, WEIGHTS)
    seconds = {"encode_text": 0.1, "denoise": 10, "refine": 10, "decode": 0.1}
    work = tuple(seconds.get(stage, 0) * table.rate(workers[0], stage) for stage in TWO_PASSES.on_device)
    predicted = PredictedCosts(TWO_PASSES, {f"r{index:03}": work for index in range(num_clips)}, STAGE_RATES, WEIGHTS)
    every = dict.fromkeys(predicted.work_of, order)
    scheduler = Scheduler(placed, predicted)
    scheduler.add(predicted.work_of, order)
    found = [one for one in better_orders(scheduler, workers, predicted) if one]
    upstream_first = bool(found) and found[-1].upstream_first
    return (
        makespan(list(predict(placed, every, predicted))),
        makespan(list(predict(placed, every, predicted, upstream_first=upstream_first))),
    )


def test_first_passes_come_first_where_whole_clips_would_leave_a_card_idle_at_the_end():
    """Three clips on two cards: a card that makes two of them, each to its end, would take 40 s."""
    assert two_passes(3, 2) == pytest.approx((40, 30), rel=0.03)
    assert two_passes(12, 8) == pytest.approx((40, 30), rel=0.03)


def test_clips_are_made_to_their_end_where_that_takes_no_longer_and_while_many_are_left():
    assert two_passes(4, 2) == pytest.approx((40, 40), rel=0.03)
    assert two_passes(9, 2) == pytest.approx((100, 100), rel=0.03)


def test_a_forecast_of_nothing():
    predicted = costs([])
    placement = place(Wishes(), Inventory((gpu("H100", 80),), 16), DEMAND)
    assert forecast(placement, {}, predicted).seconds == 0
