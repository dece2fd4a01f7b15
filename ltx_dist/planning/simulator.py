"""The scheduler on a virtual clock: what a batch will do, without a device or a second spent."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from ltx_dist.estimates.costs import Costs, pass_seconds
from ltx_dist.pipeline.stages import STAGES, Stage
from ltx_dist.pipeline.work import Assignment, Completion, StageReport
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.scheduling.queues import Alike, all_alike
from ltx_dist.scheduling.scheduler import Scheduler

Reorder = Callable[[Scheduler], Iterable[Sequence[str] | None]]
"""Asked when the order is stale: orders of what waits, each better than the one before, None for work in between."""


def simulate(
    placement: Placement,
    request_ids: Iterable[str],
    duration: Callable[[Assignment], float],
    costs: Costs | None = None,
    swap: Callable[[Worker, Stage], float] | None = None,
    at: Mapping[str, Stage] | None = None,
    reorder: Reorder | None = None,
    alike: Alike = all_alike,
    under_way: Mapping[Assignment, float] | None = None,
) -> Iterator[Completion]:
    """The completions of a whole batch in which each assignment takes `duration(assignment)`, in order of their end.

    costs: what the scheduler is told of it. swap: seconds a time-sliced worker takes to load a stage that it does not
    hold. Requests begin at the first stage that a worker hosts, or where `at` has them: what is before is done.
    reorder: asked for better orders of what waits when that of now has become stale, and takes no time of this clock.
    alike: as in `Scheduler`. under_way: assignments that are on their workers when it begins, of requests before all
    others, and the seconds that they still take.
    """
    scheduler = Scheduler(placement, costs, alike)
    hosted = {stage for worker in placement.workers for stage in worker.stages}
    first = next(stage for stage in STAGES if stage in hosted)
    loads = _Loads(placement, swap, under_way or ())
    running: list[tuple[float, int, Assignment, float, float]] = []
    num_started = 0
    for assignment, left in (under_way or {}).items():
        num_started += 1
        scheduler.add_running(assignment, left)
        heapq.heappush(running, (left, num_started, assignment, 0.0, 0.0))
    for request_id in request_ids:
        scheduler.add([request_id], at.get(request_id, first) if at else first)
    now = 0.0
    while not scheduler.is_finished:
        for assignment in scheduler.schedule():
            num_started += 1
            began = now + loads.seconds(assignment)
            heapq.heappush(running, (began + duration(assignment), num_started, assignment, began, began - now))
        assert running, "nothing in flight and requests are open: the scheduler stalled"
        if reorder is not None and scheduler.is_order_stale:
            scheduler.order_is_chosen()
            for order in filter(None, reorder(scheduler)):
                scheduler.reorder(order)
        now, _, assignment, began, load = heapq.heappop(running)
        completion = Completion(assignment, began, now, StageReport(now - began, load))
        scheduler.update(completion)
        yield completion


def predict(
    placement: Placement,
    request_ids: Iterable[str],
    costs: Costs,
    at: Mapping[str, Stage] | None = None,
    under_way: Mapping[Assignment, float] | None = None,
) -> Iterator[Completion]:
    """The completions that the costs predict. mp4s made beside a device are not counted.

    Requests whose work is equal are taken for alike: settings that change no work keep few of them apart.
    """
    workers = {worker.worker_id: worker for worker in placement.workers}

    def duration(assignment: Assignment) -> float:
        if assignment.stage is Stage.ENCODE_VIDEO:
            return 0.0
        return pass_seconds(costs, assignment, workers[assignment.worker_id])

    def alike(stage: Stage, request_id: str) -> float:
        return costs.work(request_id, stage)

    return simulate(placement, request_ids, duration, _Fixed(costs), costs.swap_seconds, at, None, alike, under_way)


class _Loads:
    """What is on each time-sliced worker's device."""

    def __init__(
        self,
        placement: Placement,
        swap: Callable[[Worker, Stage], float] | None,
        under_way: Iterable[Assignment],
    ) -> None:
        self._workers: Mapping[str, Worker] = {worker.worker_id: worker for worker in placement.workers}
        self._swap = swap
        self._loaded = {assignment.worker_id: assignment.stage for assignment in under_way}

    def seconds(self, assignment: Assignment) -> float:
        worker, stage = self._workers[assignment.worker_id], assignment.stage
        if self._swap is None or worker.residency == "resident" or stage is Stage.ENCODE_VIDEO:
            return 0.0
        if self._loaded.get(worker.worker_id) is stage:
            return 0.0
        self._loaded[worker.worker_id] = stage
        return self._swap(worker, stage)


class _Fixed:
    """Costs that learn nothing: a simulation must not be taken for what was seen."""

    def __init__(self, costs: Costs) -> None:
        self.work, self.rate, self.swap_seconds = costs.work, costs.rate, costs.swap_seconds

    def observe(self, completion: Completion, worker: Worker) -> bool:
        return False
