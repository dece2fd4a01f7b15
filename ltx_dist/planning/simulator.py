"""Runs the scheduler on a virtual clock to predict a batch, without devices."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from ltx_dist.estimates.costs import Costs, pass_seconds
from ltx_dist.pipeline.work import Assignment, Completion, StageReport
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.scheduling.queues import BatchKey, one_key
from ltx_dist.scheduling.scheduler import Order, Scheduler

Todo = Mapping[str, Sequence[str]]
"""By request, in the order of submission, the stages it has to run."""

Reorder = Callable[[Scheduler], Iterable[Order | None]]
"""Orders of what waits, each better than the one before; None for work in between."""

Swap = Callable[[Worker, Collection[str]], float]
"""Seconds that a worker takes to bring components to its device."""


def simulate(
    placement: Placement,
    todo: Todo,
    duration: Callable[[Assignment], float],
    costs: Costs | None = None,
    swap: Swap | None = None,
    batch_key: BatchKey = one_key,
    reorder: Reorder | None = None,
    running: Mapping[Assignment, float] | None = None,
    upstream_first: bool = False,
) -> Iterator[Completion]:
    """The completions of a whole batch in which each assignment takes `duration(assignment)`, in order of their end.

    costs: what the scheduler knows of them. swap: what components that are not on a device take to get there, on
    workers whose components take turns; nothing if not given. reorder: asked for better orders of what waits whenever
    one is due, and takes no time of this clock. running: assignments that are on their workers when it begins, and the
    seconds that they still take; `todo` begins with their requests, each at its running stage. upstream_first: see
    `Scheduler.reorder`.
    """
    scheduler, order = Scheduler(placement, costs, batch_key), OrderRevision()
    loads = _Loads(placement, swap, running or ())
    in_flight: list[tuple[float, int, Assignment, float, float]] = []
    num_started = 0
    for assignment, left in (running or {}).items():
        num_started += 1
        scheduler.add_running(assignment, todo, left)
        heapq.heappush(in_flight, (left, num_started, assignment, 0.0, 0.0))
    begun = {name for assignment in running or () for name in assignment.request_ids}
    for request_id, stages in todo.items():
        if request_id not in begun:
            scheduler.add([request_id], stages)
    scheduler.reorder((), upstream_first)
    now = 0.0
    while not scheduler.is_finished:
        for assignment in scheduler.schedule():
            num_started += 1
            began = now + loads.seconds(assignment)
            heapq.heappush(in_flight, (began + duration(assignment), num_started, assignment, began, began - now))
        assert in_flight, "nothing in flight and requests are open: the scheduler stalled"
        if reorder is not None and order.is_due(scheduler):
            for better in filter(None, reorder(scheduler)):
                scheduler.reorder(*better)
        now, _, assignment, began, load = heapq.heappop(in_flight)
        completion = Completion(assignment, began, now, StageReport(now - began, load))
        scheduler.update(completion)
        yield completion


class OrderRevision:
    """Tells when the order of what waits is out of date: requests were added, workers have come or gone, costs have
    drifted, or half of the work was done since the last time."""

    def __init__(self) -> None:
        self._revision = -1
        self._work = 0.0

    def is_due(self, scheduler: Scheduler) -> bool:
        """True once per revision: the caller looks for an order that takes everything so far into account."""
        if scheduler.revision == self._revision and scheduler.remaining_work >= self._work / 2:
            return False
        self._revision, self._work = scheduler.revision, scheduler.remaining_work
        return True


def predict(
    placement: Placement,
    todo: Todo,
    costs: Costs,
    running: Mapping[Assignment, float] | None = None,
    upstream_first: bool = False,
) -> Iterator[Completion]:
    """The completions that the costs predict. Host stages are taken to need no time. Arguments: as in `simulate`.

    Requests of equal work count as alike: settings that change no work keep few of them apart.
    """
    workers = {worker.worker_id: worker for worker in placement.workers}
    on_device = frozenset(placement.recipe.on_device)

    def duration(assignment: Assignment) -> float:
        if assignment.stage not in on_device:
            return 0.0
        return pass_seconds(costs, assignment, workers[assignment.worker_id])

    return simulate(
        placement,
        todo,
        duration,
        costs=_Fixed(costs),
        swap=costs.swap_seconds,
        batch_key=_work_key(costs),
        running=running,
        upstream_first=upstream_first,
    )


def _work_key(costs: Costs) -> BatchKey:
    """The batch key: requests of equal work may share a pass."""

    def key(stage: str, request_id: str) -> float:
        return costs.work(request_id, stage)

    return key


class _Loads:
    """Tracks the components on the device of each worker that takes turns."""

    def __init__(self, placement: Placement, swap: Swap | None, running: Iterable[Assignment]) -> None:
        self._workers: Mapping[str, Worker] = {worker.worker_id: worker for worker in placement.workers}
        self._recipe, self._swap = placement.recipe, swap
        self._loaded = {
            assignment.worker_id: frozenset(placement.recipe[assignment.stage].components) for assignment in running
        }

    def seconds(self, assignment: Assignment) -> float:
        worker, components = self._workers[assignment.worker_id], self._recipe[assignment.stage].components
        if self._swap is None or worker.residency == "resident" or not components:
            return 0.0
        missing = frozenset(components) - self._loaded.get(worker.worker_id, frozenset())
        self._loaded[worker.worker_id] = frozenset(components)
        return self._swap(worker, missing)


class _Fixed:
    """Costs that do not learn: a simulation is not a measurement."""

    def __init__(self, costs: Costs) -> None:
        self.work, self.rate, self.swap_seconds = costs.work, costs.rate, costs.swap_seconds

    def observe(self, completion: Completion, worker: Worker) -> bool:
        return False
