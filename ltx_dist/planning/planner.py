"""Compares layouts: simulates each with the predicted costs, and takes the one with the shortest makespan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from ltx_dist.estimates.bounds import ALL_WORK, LONGEST_CLIP, Bound, lower_bound
from ltx_dist.estimates.costs import Costs, seconds
from ltx_dist.pipeline.recipe import Recipe
from ltx_dist.pipeline.timeline import busy_shares
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.placement.fitting import BatchDemand
from ltx_dist.placement.inventory import Inventory
from ltx_dist.placement.layouts import Hosted
from ltx_dist.placement.placement import Wishes, host_bytes, place, with_host_slots
from ltx_dist.placement.waves import in_waves, wave_size
from ltx_dist.planning.host_slots import host_slots
from ltx_dist.planning.ordering import Ordered, best_order
from ltx_dist.planning.simulator import Todo

SHORTER = 0.01
"""A layout must save this share of the makespan to be preferred to a plainer one."""

WELL_FILLED = 0.8
"""A device that is busy for a smaller share of the makespan than this could have rendered more clips."""

PLAINEST_FIRST: tuple[Literal["auto", "elastic", "pinned"], ...] = ("auto", "elastic", "pinned")
"""The layouts compared for `auto`. `auto` itself is the plainest: shared on one device, replicated on several."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """The prediction for a layout. busy: share of the makespan, 0 to 1, by worker."""

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


def forecast(placement: Placement, todo: Todo, costs: Costs) -> Forecast:
    """The forecast of one layout, with the best order of these requests."""
    order, stages = best_order(placement, todo, costs), placement.recipe.on_device
    works = [
        tuple(costs.work(name, stage) if stage in left else 0.0 for stage in stages) for name, left in todo.items()
    ]
    bound = lower_bound(works, placement.workers, stages, costs)
    return Forecast(placement, order, bound, busy_shares(order.completions, placement.recipe), len(todo))


def forecasts(
    wishes: Wishes,
    inventory: Inventory,
    demand: BatchDemand,
    todo: Todo,
    costs: Costs,
) -> list[Forecast]:
    """Forecasts of the layouts that the config and the devices allow, best first.

    Raises ValueError naming the field when no layout can be placed.
    """
    needed = demand.models.recipe.ordered({stage for stages in todo.values() for stage in stages})
    on_device = tuple(stage for stage in needed if stage in demand.models.recipe.on_device)
    placements: list[Placement] = []
    for placement in _placements(wishes, inventory, demand, on_device):
        placement = in_waves(placement, wishes.wave, lambda worker: _wave(worker, todo, costs, demand.models.recipe))
        if wishes.host_slots is None:
            slots_of = host_slots(placement, demand.shapes, todo, costs, inventory.num_cpus)
            placement = with_host_slots(placement, slots_of, demand, host_bytes(wishes, inventory))
        placements.append(placement)
    found = [forecast(placement, todo, costs) for placement in placements]
    # Plainer layouts come first, so a later one must be shorter by more than the costs can tell.
    best = found[0]
    for other in found[1:]:
        best = other if other.seconds < (1 - SHORTER) * best.seconds else best
    return [best, *sorted((one for one in found if one is not best), key=lambda one: one.seconds)]


def _wave(worker: Worker, todo: Todo, costs: Costs, recipe: Recipe) -> int:
    """The wave for a mean clip on this worker and for the time that swapping all of its weights takes."""
    if not todo:
        return 1
    swap = costs.swap_seconds(worker, {component for stage in worker.stages for component in recipe[stage].components})
    whole = sum(
        seconds(costs, name, stage, worker) for name, left in todo.items() for stage in worker.stages if stage in left
    )
    return wave_size(swap, whole / len(todo)) if whole else 1


def _placements(wishes: Wishes, inventory: Inventory, demand: BatchDemand, needed: Hosted) -> list[Placement]:
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


def _hosts(placement: Placement) -> list[tuple[Hosted, str]]:
    return [(worker.stages, worker.residency) for worker in placement.workers]


def advice(best: Forecast) -> str:
    """One line: what would shorten this batch, or that only more or faster devices would."""
    workers = best.placement.workers
    if len(workers) > 1 and best.bound.by == LONGEST_CLIP:
        return "The longest clip alone takes as long as all others together: more devices would not help."
    if best.bound.by == ALL_WORK or len(workers) == 1:
        sliced = sum(worker.residency == "time_sliced" for worker in workers)
        if sliced:
            return (
                f"{sliced} of {len(workers)} devices must swap weights: smaller weights or more memory would "
                "avoid that."
            )
        idlest = min(best.busy.get(worker.worker_id, 0.0) for worker in workers)
        if idlest < WELL_FILLED:
            return (
                f"Too few clips to keep every device busy (one is busy {idlest:.0%}): more clips would take no longer."
            )
        return "All devices are busy to the end: only more or faster devices would shorten this batch."
    hosts = [worker for worker in workers if best.bound.by in worker.stages]
    noun = best.placement.recipe[best.bound.by].label.noun
    if len(hosts) == len(workers):
        return f"All devices run {noun}, which takes nearly all of the time: more or faster devices would help."
    spare = min((w for w in workers if w not in hosts), key=lambda w: best.busy.get(w.worker_id, 0.0))
    return (
        f"The bottleneck is {noun}: let one more device run it "
        f"({spare.worker_id} is busy {best.busy.get(spare.worker_id, 0.0):.0%})."
    )
