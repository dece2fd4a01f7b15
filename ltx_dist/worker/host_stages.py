"""Stages that run on a worker's host, so that its device need not wait for them.

x264 takes 1.8 s for 121 frames of 704x480 on two cores; an H100 needs 0.6 s for all of a distilled clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

import numpy as np

from ltx_dist.models.family import Operation, StageContext
from ltx_dist.pipeline.payloads import DecodedClip, StageOutput
from ltx_dist.pipeline.recipe import Recipe
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import Mp4Settings
from ltx_dist.worker.stage_call import Inputs, StageCall

Frames = Iterator[np.ndarray]


class HostStages:
    """Runs host stages in threads, one per slot.

    A host stage begins while the device stage before it still runs: it gets the clip's frames as they leave the device.
    """

    def __init__(self, slots: int) -> None:
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix="host-stage")
        self._begun: dict[tuple[str, str], Future[Any]] = {}

    def begin(self, request_id: str, stage: str, output: Any, run: Callable[[Any], Any]) -> None:
        """Run a host stage on a device stage's output for a request; `result` returns its output.

        Returns when the device has finished: the frames of a decoded clip are consumed here, which may raise.
        """
        if not isinstance(output, DecodedClip):
            self._begun[request_id, stage] = self._threads.submit(run, output)
            return
        waiting: SimpleQueue[np.ndarray | RuntimeError | None] = SimpleQueue()
        fed = replace(output, frames=_taken_from(waiting))
        self._begun[request_id, stage] = self._threads.submit(run, fed)
        try:
            for frame in output.frames:
                waiting.put(frame)
        except BaseException:  # on Ctrl-C, too: the thread would wait for frames forever
            # Not this error: raised in two threads, it would keep its traceback, which holds what is on the device.
            waiting.put(RuntimeError("the device stage failed"))
            del self._begun[request_id, stage]
            raise
        waiting.put(None)

    def has_begun(self, request_id: str, stage: str) -> bool:
        return (request_id, stage) in self._begun

    def result(self, request_id: str, stage: str) -> Any:
        """Wait for a stage that has begun, and return its output. Raises what the stage raised."""
        return self._begun.pop((request_id, stage)).result()


def _taken_from(waiting: SimpleQueue[np.ndarray | RuntimeError | None]) -> Frames:
    while (item := waiting.get()) is not None:
        if isinstance(item, RuntimeError):
            raise item
        yield item


class HostOperations:
    """Runs the host stages of a recipe on a worker, each with its operation.

    operations: by stage name. mp4: how frames are encoded. slots: maximum number of clips in host stages at a time.
    """

    def __init__(self, recipe: Recipe, operations: Mapping[str, Operation], mp4: Mp4Settings, slots: int) -> None:
        self._recipe, self._operations, self._mp4 = recipe, operations, mp4
        self._threads = HostStages(slots)

    def begin(self, call: StageCall, outputs: Sequence[StageOutput]) -> bool:
        """Begin the host stage that follows the device stage, and return True; False if no host stage follows.

        If one follows, the device stage's output stays on this worker.
        """
        if not (following := self._recipe.host_stages_after(call.stage.name)):
            return False
        after = replace(call, stage=self._recipe[following[0]])
        for request, given, output in zip(call.requests, call.inputs, outputs, strict=True):
            self._begin(after, request, given, output, call.stage.name)
        return True

    def run(self, call: StageCall) -> list[StageOutput]:
        """The outputs of a host stage; waits for those that are running."""
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
