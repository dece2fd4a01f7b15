"""How many clips may wait between two stages. Where a worker's components take turns, that is the size of a wave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import ceil

from ltx_dist.pipeline.recipe import Recipe
from ltx_dist.pipeline.worker import Placement, Worker

DEFAULT_QUEUE = 6
"""Clips that may wait between two stages, for each worker that takes from the queue, where nothing is swapped: with 2,
stages of alike length but unlike clips keep each other waiting. They are 4 to 9 MB each."""

DEFAULT_WAVE = 8
"""Clips that may wait between two stages if a change of stage swaps weights at an unknown cost."""

WAVE_OVERHEAD = 0.05
"""Maximum share of a wave's time that swaps may take."""

MAX_WAVE = 100
"""Conditioning and latents of a waiting clip are some 4 MB on the host; beyond this a first clip takes long to come."""


def wave_size(swap_seconds: float, clip_seconds: float) -> int:
    """Clips that a stage takes in a row so that swaps take `WAVE_OVERHEAD` of the time: ceil(S / (0.05 T))."""
    assert clip_seconds > 0
    return min(MAX_WAVE, max(1, ceil(swap_seconds / (WAVE_OVERHEAD * clip_seconds) - 1e-9)))


def max_queued(
    recipe: Recipe,
    workers: Sequence[Worker],
    wished: int | None,
    wave_of: Callable[[Worker], int] = lambda _: DEFAULT_WAVE,
) -> dict[str, int]:
    """The bound of the queue in front of each device stage but the first, whose queue is the batch itself.

    Requests in flight on their way to a stage count against its bound, so every producer beyond the first adds a pass:
    a wave of 8 is exactly 8 clips for one worker, and no bound ever keeps one of several producers idle by itself.

    wished: the wave that the config sets. If it sets none, a wave is as large as `wave_of` says for the worker whose
    swaps need the most, and no smaller than a shared pass, which would have no room otherwise.
    """
    bounds: dict[str, int] = {}
    for stage in recipe.on_device[1:]:
        producers = [worker for worker in workers if set(recipe.feeding(stage)).intersection(worker.stages)]
        consumers = [worker for worker in workers if stage in worker.stages]
        swapping = [worker for worker in consumers if worker.residency != "resident" and len(worker.stages) > 1]
        shared = max(worker.batch_size for worker in workers)
        wave = wished or max(shared, max(map(wave_of, swapping), default=DEFAULT_QUEUE))
        bounds[stage] = wave * len(consumers) + shared * max(len(producers) - 1, 0)
    return bounds


def in_waves(placement: Placement, wished: int | None, wave_of: Callable[[Worker], int]) -> Placement:
    """The placement with waves of the size that each worker's swaps need, unless the config sets it."""
    return replace(placement, max_queued=max_queued(placement.recipe, placement.workers, wished, wave_of))
