"""Decides which requests may share a forward pass: those that differ only in prompts and seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import fields
from functools import lru_cache
from typing import TypeVar

from ltx_dist.pipeline.recipe import Recipe, StageSpec
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.scheduling.queues import BatchKey

OWN = frozenset({"request_id", "prompt", "negative_prompt", "used_negative_prompt", "seed"})
"""Fields that may differ within a pass: each request has its own name, row of embeddings and generator."""

Shape = TypeVar("Shape", bound=Hashable)


def shared_settings(recipe: Recipe, request: RenderRequest) -> Hashable:
    """The batch key: equal for requests that may share passes.

    They may differ in `OWN` and in what only stages without shared passes depend on, and in nothing else: a setting
    that requests get one day keeps apart those that differ in it. Settings of shared passes may be properties.
    A request that a stage runs alone shares none.
    """
    if any(stage.shares_pass and not stage.shares_with(request) for stage in recipe):
        return request.request_id
    return tuple([getattr(request, name) for name in _shared_names(recipe.stages)])


@lru_cache(maxsize=8)
def _shared_names(stages: tuple[StageSpec, ...]) -> tuple[str, ...]:
    """The fields and properties of requests in which those that share passes must be equal, sorted."""
    in_passes = {name for stage in stages if stage.shares_pass for name in stage.settings}
    after = {name for stage in stages if not stage.shares_pass for name in stage.settings} - in_passes
    return tuple(sorted({field.name for field in fields(RenderRequest)} - OWN - after | in_passes - OWN))


def batch_key(recipe: Recipe, requests: Iterable[RenderRequest]) -> BatchKey:
    """The key for the scheduler, which only sees ids. It is the same for every stage."""
    numbers: dict[Hashable, int] = {}
    kinds = {r.request_id: numbers.setdefault(shared_settings(recipe, r), len(numbers)) for r in requests}

    def key(stage: str, request_id: str) -> Hashable:
        return kinds[request_id]

    return key


def most_together(
    recipe: Recipe, requests: Iterable[RenderRequest], batch_size: int, shape: Callable[[RenderRequest], Shape]
) -> dict[Shape, int]:
    """Number of requests of each shape that can share a pass: at most `batch_size`, and as many as are alike."""
    counts = Counter((shape(request), shared_settings(recipe, request)) for request in requests)
    most: dict[Shape, int] = {}
    for (one, _), number in counts.items():
        most[one] = max(most.get(one, 1), min(batch_size, number))
    return most
