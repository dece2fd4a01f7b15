"""Which requests may share a forward pass: those of which the pipeline is told the same but for prompts and seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import fields
from typing import TypeVar

from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.stages import Stage
from ltx_dist.scheduling.queues import Alike

OWN = frozenset({"request_id", "prompt", "negative_prompt", "seed", "decode_timestep", "decode_noise_scale"})
"""What each request of a pass has for itself: a row of embeddings and a generator, and how it is decoded, alone."""

IN_COMMON = tuple(field.name for field in fields(RenderRequest) if field.name not in OWN)
"""All else. A setting that requests get one day keeps apart those that differ in it, until it is named above."""

Shape = TypeVar("Shape", bound=Hashable)


def shared_settings(request: RenderRequest) -> Hashable:
    """Equal for requests that may share a pass."""
    return tuple(getattr(request, name) for name in IN_COMMON)


def alike(requests: Iterable[RenderRequest]) -> Alike:
    """For the scheduler, which sees ids only. Of prompts it asks the same as of denoising."""
    numbers: dict[Hashable, int] = {}
    kinds = {r.request_id: numbers.setdefault(shared_settings(r), len(numbers)) for r in requests}

    def kind(stage: Stage, request_id: str) -> Hashable:
        return kinds[request_id]

    return kind


def most_together(
    requests: Iterable[RenderRequest], batch_size: int, shape: Callable[[RenderRequest], Shape]
) -> dict[Shape, int]:
    """How many requests of each shape can come to share a pass: at most so many as there are alike."""
    counts = Counter((shape(request), shared_settings(request)) for request in requests)
    most: dict[Shape, int] = {}
    for (one, _), number in counts.items():
        most[one] = max(most.get(one, 1), min(batch_size, number))
    return most
