"""Simulates batches on a virtual clock, whose stages may take other times than the cost model's table says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ltx_dist.estimates.costs import pass_seconds
from ltx_dist.pipeline.timeline import makespan
from ltx_dist.pipeline.work import Assignment, Completion
from ltx_dist.pipeline.worker import Placement
from ltx_dist.planning.losses import measured_bound
from ltx_dist.planning.order_search import better_orders
from ltx_dist.planning.simulator import simulate
from ltx_dist.run.batch import Batch

PRECISION = "bfloat16"

SLOWER = {"denoise": 1.4, "refine": 1.4, "decode": 0.7}
"""Factors on the table's seconds, which the cost model has to learn during a batch."""


@dataclass(frozen=True)
class Simulated:
    """A finished batch. seconds: its makespan. bound: the makespan that no order can beat, given the true seconds."""

    completions: Sequence[Completion]
    seconds: float
    bound: float


def simulated(
    batch: Batch, placement: Placement, order: Sequence[str], slower: Mapping[str, float] | None = None
) -> Simulated:
    """The batch, started in this order, with the real scheduler, which reorders what waits as it learns the costs.

    Host stages are left out, because they take no device time. slower: factors by stage; 1 for any other stage.
    """
    table, costs = batch.costs(PRECISION), batch.costs(PRECISION)
    workers = {worker.worker_id: worker for worker in placement.workers}
    on_device = placement.recipe.on_device
    todo = {name: tuple(stage for stage in batch.todo[name] if stage in on_device) for name in order}

    def duration(assignment: Assignment) -> float:
        factor = (slower or {}).get(assignment.stage, 1.0)
        return pass_seconds(table, assignment, workers[assignment.worker_id]) * factor

    completions = list(
        simulate(
            placement, todo, duration, costs, costs.swap_seconds,
            reorder=lambda scheduler: better_orders(scheduler, placement.workers, costs),
        )
    )  # fmt: skip
    bound = measured_bound(completions, placement.workers, placement.recipe, costs)
    return Simulated(completions, makespan(completions), bound.seconds)
