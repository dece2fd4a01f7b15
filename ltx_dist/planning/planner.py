"""Layouts side by side: each that can be placed is simulated with the predicted costs, and the shortest is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ltx_dist.estimates.bounds import ALL_WORK, LONGEST_CLIP, Bound, lower_bound
from ltx_dist.estimates.costs import Costs, Work, seconds
from ltx_dist.pipeline.stages import STAGES, Stage
from ltx_dist.pipeline.timeline import busy_shares
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.placement.fitting import Demand, wave_size
from ltx_dist.placement.inventory import Inventory
from ltx_dist.placement.placement import Wishes, in_waves, place
from ltx_dist.planning.ordering import Ordered, best_order

SHORTER = 0.01
"""A layout must save this share of the makespan to be taken before a plainer one."""

WELL_FILLED = 0.8
"""A device that is busy for less of the makespan than this could have done more clips in it."""

PLAINEST_FIRST: tuple[Literal["auto", "elastic", "pinned"], ...] = ("auto", "elastic", "pinned")
"""What is planned for `auto`. To place `auto` itself is the plainest: shared on one device, replicated on several."""

NOUNS: Mapping[str, str] = {"encode_text": "the text encoder", "denoise": "the transformer", "decode": "the VAE"}


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a layout is predicted to do with a batch. busy: share of the makespan, by worker."""

    placement: Placement
    order: Ordered
    bound: Bound
    busy: Mapping[str, float]
    num_clips: int

    @property
    def seconds(self) -> float:
        return self.order.seconds

    @property
    def clips_an_hour(self) -> float:
        return self.num_clips / self.seconds * 3600 if self.seconds else 0.0


def forecast(placement: Placement, request_ids: Sequence[str], costs: Costs) -> Forecast:
    """Of one layout, with the best order of these requests."""
    order = best_order(placement, request_ids, costs)
    bound = lower_bound([_work(name, placement, costs) for name in request_ids], placement.workers, costs)
    return Forecast(placement, order, bound, busy_shares(order.completions), len(request_ids))


def forecasts(
    wishes: Wishes,
    inventory: Inventory,
    demand: Demand,
    request_ids: Sequence[str],
    costs: Costs,
    needed: tuple[Stage, ...] = STAGES,
) -> list[Forecast]:
    """Of every layout that the wishes and the devices allow, best first; of one alone where it was wished for.

    needed: the stages that are still to be run. Raises ValueError naming the field when no layout can be placed.
    """
    placements = [
        in_waves(placement, wishes, lambda worker: _wave(worker, request_ids, costs))
        for placement in _placements(wishes, inventory, demand, needed)
    ]
    found = [forecast(placement, request_ids, costs) for placement in placements]
    # Plainer layouts come first, so a later one must be shorter by more than the costs can tell.
    best = found[0]
    for other in found[1:]:
        best = other if other.seconds < (1 - SHORTER) * best.seconds else best
    return [best, *sorted((one for one in found if one is not best), key=lambda one: one.seconds)]


def _wave(worker: Worker, request_ids: Sequence[str], costs: Costs) -> int:
    """By what swapping all of the worker's weights takes, and a mean clip on it."""
    if not request_ids:
        return 1
    swap = sum(costs.swap_seconds(worker, stage) for stage in worker.stages)
    whole = sum(seconds(costs, name, stage, worker) for name in request_ids for stage in worker.stages)
    return wave_size(swap, whole / len(request_ids)) if whole else 1


def _placements(wishes: Wishes, inventory: Inventory, demand: Demand, needed: tuple[Stage, ...]) -> list[Placement]:
    if wishes.layout != "auto":
        return [place(wishes, inventory, demand, needed)]
    found: list[Placement] = []
    errors: list[ValueError] = []
    for layout in PLAINEST_FIRST:
        try:
            placement = place(replace(wishes, layout=layout), inventory, demand, needed)
        except ValueError as error:
            errors.append(error)
            continue
        # Tiles change the pixels: they must not depend on costs, which the next run may know better.
        demand = demand.in_tiles(placement.tiling)
        if len(placement.workers) == 1:
            return [placement]
        if not any(_hosts(placement) == _hosts(other) for other in found):
            found.append(placement)
    if not found:
        raise errors[0]
    return found


def _hosts(placement: Placement) -> list[tuple[tuple[Stage, ...], str]]:
    return [(worker.stages, worker.residency) for worker in placement.workers]


def _work(request_id: str, placement: Placement, costs: Costs) -> Work:
    """Of the stages that the placement runs: the others are done."""
    hosted = {stage for worker in placement.workers for stage in worker.stages}
    encode, denoise, decode = (costs.work(request_id, stage) if stage in hosted else 0.0 for stage in STAGES)
    return encode, denoise, decode


def advice(best: Forecast) -> str:
    """One line: what would shorten this batch, or that only more or faster devices would."""
    workers = best.placement.workers
    if len(workers) > 1 and best.bound.by == LONGEST_CLIP:
        return "The longest clip alone takes as long as all others together: more devices would not help."
    if best.bound.by == ALL_WORK or len(workers) == 1:
        sliced = sum(worker.residency == "time_sliced" for worker in workers)
        if sliced:
            return f"{sliced} of {len(workers)} devices must swap weights: smaller weights or more memory save that."
        idlest = min(best.busy.get(worker.worker_id, 0.0) for worker in workers)
        if idlest < WELL_FILLED:
            return (
                f"Too few clips to fill each device to the end (one is busy {idlest:.0%}): more would take no longer."
            )
        return "All devices are busy to the end: only another or a faster device would shorten this batch."
    hosts = [worker for worker in workers if best.bound.by in worker.stages]
    noun = NOUNS[best.bound.by]
    if len(hosts) == len(workers):
        return f"All devices run {noun}, which takes nearly all of the time: another or a faster device would help."
    spare = min((w for w in workers if w not in hosts), key=lambda w: best.busy.get(w.worker_id, 0.0))
    return (
        f"{noun[0].upper()}{noun[1:]} is the long pole: let one more device run it "
        f"({spare.worker_id} is busy {best.busy.get(spare.worker_id, 0.0):.0%})."
    )
