"""Decides which requests may share a forward pass: those that differ only in prompts and seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import fields
from typing import TypeVar

from ltx_dist.pipeline.recipe import Recipe
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.scheduling.queues import BatchKey

OWN = frozenset({"request_id", "prompt", "negative_prompt", "used_negative_prompt", "seed"})
"""Fields that may differ within a pass: each request has its own name, row of embeddings and generator."""

Shape = TypeVar("Shape", bound=Hashable)


def settings_shared_in(recipe: Recipe) -> tuple[str, ...]:
    """The names, sorted, of the fields and properties of requests that must be equal in all requests of a pass.

    All fields count but `OWN` and those that only stages without shared passes read. A field that is added to requests
    therefore keeps them apart until a stage says otherwise. A setting of shared passes may also be a property.
    """
    in_passes = {name for stage in recipe if stage.shares_pass for name in stage.settings}
    after = {name for stage in recipe if not stage.shares_pass for name in stage.settings} - in_passes
    return tuple(sorted({field.name for field in fields(RenderRequest)} - OWN - after | in_passes - OWN))


def shared_settings(recipe: Recipe, requests: Iterable[RenderRequest]) -> list[Hashable]:
    """One value per request, equal for those that may share passes.

    A request that some stage has to run alone shares its passes with none: its value is its id.
    """
    names = settings_shared_in(recipe)
    return [
        tuple([getattr(request, name) for name in names])
        if all(stage.shares_with(request) for stage in recipe if stage.shares_pass)
        else request.request_id
        for request in requests
    ]


def batch_key(recipe: Recipe, requests: Sequence[RenderRequest]) -> BatchKey:
    """The key for the scheduler, which sees only ids. It is the same for every stage."""
    numbers: dict[Hashable, int] = {}
    kinds = {
        request.request_id: numbers.setdefault(settings, len(numbers))
        for request, settings in zip(requests, shared_settings(recipe, requests), strict=True)
    }

    def key(stage: str, request_id: str) -> Hashable:
        return kinds[request_id]

    return key


def most_together(
    recipe: Recipe, requests: Sequence[RenderRequest], batch_size: int, shape: Callable[[RenderRequest], Shape]
) -> dict[Shape, int]:
    """Size of the largest pass of each shape: as many requests as agree in the shared settings, up to `batch_size`."""
    counts = Counter(zip(map(shape, requests), shared_settings(recipe, requests), strict=True))
    most: dict[Shape, int] = {}
    for (one, _), number in counts.items():
        most[one] = max(most.get(one, 1), min(batch_size, number))
    return most
