"""Runs assignments in this process, one after the other. The plain path that Ray's results are compared to."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from ltx_dist.execution.worker import StageWorker, WorkerSpec
from ltx_dist.types import Assignment, Completion, EncodedVideo, RenderRequest, StageOutput, WorkerState


class LocalExecutor:
    """`submit` remembers, `wait` runs one assignment. No threads, so one device is all it can keep busy."""

    def __init__(self, specs: Sequence[WorkerSpec]) -> None:
        self._epoch = time.monotonic()
        self._workers = {spec.worker.worker_id: StageWorker(spec) for spec in specs}
        self._submitted: deque[tuple[Assignment, RenderRequest]] = deque()
        self._outputs: dict[str, StageOutput] = {}

    def submit(self, assignment: Assignment, request: RenderRequest) -> None:
        self._submitted.append((assignment, request))

    def wait(self, timeout: float) -> list[Completion]:
        """Runs the oldest assignment to its end, however long that takes."""
        if not self._submitted:
            return []
        assignment, request = self._submitted.popleft()
        started = time.monotonic() - self._epoch
        worker = self._workers[assignment.worker_id]
        output, report = worker.run(assignment.stage, request, self._outputs.get(request.request_id))
        if output is not None:
            self._outputs[request.request_id] = output
        video = output if isinstance(output, EncodedVideo) else None
        finished = time.monotonic() - self._epoch
        started += report.load_seconds
        return [Completion(assignment, started, finished, report, worker_lost=report.device_lost, video=video)]

    def fetcher(self, request_id: str) -> Callable[[], StageOutput]:
        output = self._outputs[request_id]
        return lambda: output

    def restore(self, request_id: str, output: StageOutput) -> None:
        self._outputs[request_id] = output

    def release(self, request_id: str) -> None:
        self._outputs.pop(request_id, None)

    def worker_states(self) -> list[WorkerState]:
        return [worker.state() for worker in self._workers.values()]

    def shutdown(self) -> None:
        self._workers.clear()
        self._outputs.clear()
