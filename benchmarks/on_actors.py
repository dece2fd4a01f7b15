"""Renders batches on Ray actors that sleep instead of running a model, with the real scheduler and batch loop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ltx_dist.cluster.ray_executor import RayExecutor
from ltx_dist.engine.loop import BatchLoop
from ltx_dist.estimates.costs import Costs
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.work import Completion
from ltx_dist.pipeline.worker import Placement
from ltx_dist.planning.order_search import better_orders
from ltx_dist.scheduling.scheduler import Scheduler


def start_actors(specs: Sequence[Any], worker_class: type[Any]) -> RayExecutor:
    """An executor whose actors are all up before its first batch, so that none joins in the middle of one.

    specs: one per actor; the argument of `worker_class`, which has a `worker`.
    """
    executor = RayExecutor(specs, worker_class=worker_class)
    while executor.expected:
        executor.wait(1.0)
    executor.changes()
    return executor


def render(
    executor: RayExecutor, placement: Placement, costs: Costs, requests: Iterable[RenderRequest]
) -> list[Completion]:
    """The completions of a batch that is reordered as its costs are learned, as in `ltx-dist render`.

    Raises AssertionError with the error of a clip that failed.
    """
    loop = BatchLoop(
        Scheduler(placement, costs), executor, reorder=lambda rest: better_orders(rest, placement.workers, costs)
    )
    for result in loop.render(list(requests)):
        assert result.status == "done", result.error
    return loop.completions
