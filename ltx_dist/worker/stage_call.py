"""A call to a worker: a stage, the requests that share the pass, their inputs from earlier stages, and their keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from ltx_dist.pipeline.keys import render_key
from ltx_dist.pipeline.payloads import StageOutput
from ltx_dist.pipeline.recipe import Recipe, StageSpec
from ltx_dist.pipeline.request import RenderRequest

Shape = tuple[int, int, int, int]
"""Number of requests in a pass, height, width and number of frames."""

Inputs = Mapping[str, StageOutput]
"""The outputs of earlier stages for a request, by stage name."""


@dataclass(frozen=True, slots=True)
class StageCall:
    """A stage and the requests to run it for.

    inputs, keys: one entry per request, in the same order. Without keys, the mp4s have none in their seals.
    """

    stage: StageSpec
    requests: Sequence[RenderRequest]
    inputs: Sequence[Inputs]
    keys: Sequence[Mapping[str, str]] = ()

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        name: str,
        requests: Sequence[RenderRequest],
        payloads: Sequence[StageOutput | None],
        keys: Sequence[Mapping[str, str]],
    ) -> StageCall:
        """A call. payloads: for each request in turn, its inputs of the stage, as in `StageWorker.run`."""
        names = recipe[name].inputs
        if len(payloads) < len(requests) * len(names):
            names = recipe.always[name].inputs
        assert len(payloads) == len(requests) * len(names), f"{name} reads {recipe[name].inputs} of each request"
        given = iter(payloads)
        inputs = [{one: payload for one in names if (payload := next(given)) is not None} for _ in requests]
        return cls(recipe[name], requests, inputs, keys)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(request.request_id for request in self.requests)

    @property
    def shape(self) -> Shape:
        """The properties of the pass that decide how much memory it takes."""
        one = self.requests[0]
        return len(self.requests), one.height, one.width, one.num_frames

    @property
    def num_steps(self) -> int:
        """Number of denoising steps, which is equal for all its requests."""
        return attrgetter(self.stage.steps)(self.requests[0]) if self.stage.steps else 0

    def render_key(self, request: RenderRequest) -> str:
        return render_key(self.keys[self.names.index(request.request_id)]) if self.keys else ""
