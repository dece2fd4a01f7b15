"""Runs the operations of host stages: the first during the device stage before it, the others when called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ltx_dist.models.family import Operation, StageContext
from ltx_dist.pipeline.payloads import StageOutput
from ltx_dist.pipeline.recipe import Recipe
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import Mp4Settings
from ltx_dist.worker.host_stages import HostStages
from ltx_dist.worker.stage_call import Inputs, StageCall


class HostOperations:
    """operations: by stage name. slots: how many clips may be in them at a time."""

    def __init__(self, recipe: Recipe, operations: Mapping[str, Operation], mp4: Mp4Settings, slots: int) -> None:
        self._recipe, self._operations, self._mp4 = recipe, operations, mp4
        self._threads = HostStages(slots)

    def begin(self, call: StageCall, outputs: Sequence[StageOutput]) -> bool:
        """Begin the host stage that follows the device stage, if there is one. Returns whether there is.

        The device stage's output then stays on this worker.
        """
        if not (following := self._recipe.host_stages_after(call.stage.name)):
            return False
        after = replace(call, stage=self._recipe[following[0]])
        for request, given, output in zip(call.requests, call.inputs, outputs, strict=True):
            self._begin(after, request, given, output, call.stage.name)
        return True

    def run(self, call: StageCall) -> list[StageOutput]:
        """The outputs of a host stage; waits for those that have begun."""
        return [
            self._threads.result(request.request_id, call.stage.name)
            if self._threads.has_begun(request.request_id, call.stage.name)
            else self._run(call, request, given)
            for request, given in zip(call.requests, call.inputs, strict=True)
        ]

    def _begin(self, call: StageCall, request: RenderRequest, given: Inputs, output: StageOutput, made_by: str) -> None:
        def run(fed: StageOutput) -> StageOutput:
            return self._run(call, request, {**given, made_by: fed})

        self._threads.begin(request.request_id, call.stage.name, output, run)

    def _run(self, call: StageCall, request: RenderRequest, outputs: Inputs) -> StageOutput:
        inputs = {name: outputs[name] for name in call.stage.inputs if name in outputs}
        context = StageContext(call.stage, mp4=self._mp4, render_key=call.render_key)
        (output,) = self._operations[call.stage.name].run([request], [inputs], context)
        return output
