"""How many clips of a worker may be on its host at a time, so that its device does not wait for their mp4s."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from math import ceil

from ltx_dist.estimates.costs import Costs
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.worker import MAX_HOST_SLOTS, Placement, Worker
from ltx_dist.placement.placement import HOST_SLOTS
from ltx_dist.planning.simulator import Todo

MP4_PIXELS_PER_SECOND = 23e6
"""Pixels of all frames that one mp4 encodes per second, with two threads of x264 on two cores: 1.8 s for 121 frames of
704x480 (docs/decisions.md)."""

MP4_CORES = 2
"""Cores that one mp4 keeps busy."""


def host_slots(
    placement: Placement, shapes: Sequence[RenderRequest], todo: Todo, costs: Costs, num_cpus: int
) -> Callable[[Worker], int]:
    """The slots of each worker: one for the clip that it decodes, and as many as become mp4s while it decodes one.

    shapes: one request of each size. num_cpus: cores of the smallest host, which its workers share. On a CPU the device
    is the host, and more clips there gain nothing.
    """
    recipe = placement.recipe
    decoding = {stage for stage in recipe.on_device if recipe.host_stages_after(stage)}
    decoders = [worker for worker in placement.workers if not decoding.isdisjoint(worker.stages)]
    pixels = max((shape.num_frames * shape.height * shape.width for shape in shapes), default=0)
    largest_host = max(Counter(worker.node_id for worker in decoders).values(), default=1)
    most = min(MAX_HOST_SLOTS, num_cpus // (MP4_CORES * largest_host))
    works = dict.fromkeys(recipe.on_device, 0.0)
    for name, stages in todo.items():
        for stage in works.keys() & stages:
            works[stage] += costs.work(name, stage)

    def of(worker: Worker) -> int:
        if worker.device == "cpu" or decoding.isdisjoint(worker.stages) or not todo:
            return worker.host_slots
        # Where components take turns, the clips of a wave are decoded back to back; elsewhere they come as fast as all
        # workers together make them.
        in_turns = worker.residency != "resident"
        counted = decoding if in_turns else {*recipe.on_device}
        between = sum(works[stage] / costs.rate(worker, stage) for stage in counted) / len(todo)
        if not in_turns:
            between *= len(decoders) / len(placement.workers)
        wanted = ceil(pixels / MP4_PIXELS_PER_SECOND / between) + 1 if between else HOST_SLOTS
        return max(HOST_SLOTS, min(wanted, most))

    return of
