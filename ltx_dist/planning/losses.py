"""Compares a run with its lower bound, and shows where the rest of the time went."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ltx_dist.estimates.bounds import Bound, lower_bound
from ltx_dist.estimates.costs import Costs, Work
from ltx_dist.pipeline.recipe import Recipe
from ltx_dist.pipeline.timeline import first_start, lanes, makespan, went_wrong
from ltx_dist.pipeline.work import Completion
from ltx_dist.pipeline.worker import Worker


@dataclass(frozen=True, slots=True)
class Losses:
    """Seconds of the makespan by cause, as means over the workers; they add up to the makespan.

    work: in stages that succeeded. in_vain: in stages that did not. swaps: weights read or moved between clips.
    fill, drain: before a worker's first assignment and after its last. handing_over: from giving an assignment to an
    idle worker to its start: Ray, and inputs that travel. waiting: the rest, with nothing to do.
    """

    work: float = 0.0
    in_vain: float = 0.0
    swaps: float = 0.0
    fill: float = 0.0
    drain: float = 0.0
    handing_over: float = 0.0
    waiting: float = 0.0


def measured_bound(completions: Iterable[Completion], workers: Sequence[Worker], recipe: Recipe, costs: Costs) -> Bound:
    """The lower bound of the makespan, in seconds, for the work that was done, with its measured times.

    What a stage took on one kind of worker is converted for another by their rates. Only work that ended well counts:
    what was repeated or in vain could have been avoided. Requests that shared a pass took an equal part of it each.
    Loading weights is left out.
    """
    by_id = {worker.worker_id: worker for worker in workers}
    position = {stage: number for number, stage in enumerate(recipe.on_device)}
    works: defaultdict[str, list[float]] = defaultdict(lambda: [0.0] * len(position))
    for completion in completions:
        assignment = completion.assignment
        worker = by_id.get(assignment.worker_id)
        if went_wrong(completion) or assignment.stage not in position or worker is None:
            continue
        work = completion.report.seconds * costs.rate(worker, assignment.stage) / len(assignment.request_ids)
        for request_id in assignment.request_ids:
            works[request_id][position[assignment.stage]] = work
    found: list[Work] = [tuple(work) for work in works.values()]
    hosting = [worker for worker in workers if worker.stages]
    return lower_bound(found, hosting, recipe.on_device, costs)


def losses(completions: Sequence[Completion], workers: Sequence[Worker], recipe: Recipe) -> Losses:
    """Account for the time of a run's devices. Host stages run beside them and are left out."""
    total, origin = makespan(completions), first_start(completions)
    if not workers or not total:
        return Losses()
    on_devices = [completion for completion in completions if completion.assignment.stage in recipe.on_device]
    by_worker = lanes(on_devices, recipe)
    parts = [_of_worker(by_worker.get(worker.worker_id, []), origin, total) for worker in workers]
    names = Losses.__dataclass_fields__
    return Losses(**{name: sum(getattr(part, name) for part in parts) / len(parts) for name in names})


def _of_worker(lane: Sequence[Completion], origin: float, total: float) -> Losses:
    if not lane:
        return Losses(waiting=total)
    work = in_vain = swaps = handing_over = waiting = 0.0
    fill, free_from = 0.0, origin
    for position, completion in enumerate(lane):
        seconds = completion.finished - completion.started
        work, in_vain = (work, in_vain + seconds) if went_wrong(completion) else (work + seconds, in_vain)
        gap = max(0.0, completion.started - free_from)
        load = min(gap, completion.report.load_seconds)
        given = completion.started if completion.submitted is None else completion.submitted
        handed = min(gap - load, max(0.0, completion.started - load - max(given, free_from)))
        swaps, handing_over = swaps + load, handing_over + handed
        if position == 0:
            fill = gap - load - handed
        else:
            waiting += gap - load - handed
        free_from = max(free_from, completion.finished)
    return Losses(work, in_vain, swaps, fill, origin + total - free_from, handing_over, waiting)
