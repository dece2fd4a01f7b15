"""Stage outputs that an executor holds for later stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from ltx_dist.pipeline.recipe import Recipe
from ltx_dist.pipeline.request import RenderRequest

T = TypeVar("T")


class Outputs(Generic[T]):
    """Each output, or a reference to it, by request and stage, until no later stage of the request reads it.

    The output of a device stage that host stages follow never leaves its worker, so it is not held; what the device
    stage read is held until they have ended, as the clip goes back to it when one of them fails.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._held: dict[str, dict[str, T]] = {}

    def inputs(self, stage: str, requests: Sequence[RenderRequest]) -> list[T | None]:
        """What the stage reads, request by request, in the order of its inputs; None for what is not held."""
        held = [self._held.get(request.request_id, {}) for request in requests]
        return [outputs.get(name) for outputs in held for name in self._recipe[stage].inputs]

    def get(self, request_id: str, stage: str) -> T:
        return self._held[request_id][stage]

    def holds(self, request_id: str, stage: str) -> bool:
        return stage in self._held.get(request_id, {})

    def put(self, request_id: str, stage: str, output: T) -> None:
        self._held.setdefault(request_id, {})[stage] = output

    def ended(self, stage: str, requests: Sequence[RenderRequest], outputs: Sequence[T]) -> None:
        """Hold a stage's output, and free those that no later stage reads."""
        is_held = self._recipe.hands_on(stage)
        for request, output in zip(requests, outputs, strict=True):
            if is_held:
                self.put(request.request_id, stage, output)
            self._free(request, stage)

    def release(self, request_id: str) -> None:
        """Free all of a request's outputs."""
        self._held.pop(request_id, None)

    def clear(self) -> None:
        self._held.clear()

    def _free(self, request: RenderRequest, stage: str) -> None:
        position = self._recipe.position(stage)
        wanted = self._recipe.of(request)
        later = [self._recipe[name] for name in wanted if self._recipe.position(name) > position]
        if later and later[0].runs_on == "host":
            return
        read = {name for spec in later for name in self._recipe.reads(spec.name, wanted)}
        held = self._held.get(request.request_id, {})
        self._held[request.request_id] = {name: output for name, output in held.items() if name in read}
