"""Runs assignments in this process, one after the other. The plain path that Ray's results are compared to.

What takes a worker down takes this process with it, and a stage that hangs can only be ended from outside: the next run
goes on where this one was. Workers that are to be replaced need processes of their own, which is what Ray is for.
Only mp4s of workers with `video_slots` are made beside, in threads.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from ltx_dist.engine.executor import Joined, Left, failure_of
from ltx_dist.pipeline.payloads import EncodedVideo, StageOutput
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.stages import Stage
from ltx_dist.pipeline.work import Assignment, Completion, Failure, StageReport, WorkerState
from ltx_dist.worker.stage_worker import StageWorker, WorkerSpec


class LocalExecutor:
    """`submit` remembers, `wait` runs one assignment. One device is all it can keep busy."""

    def __init__(self, specs: Sequence[WorkerSpec]) -> None:
        self._epoch = time.monotonic()
        self._workers = {spec.worker.worker_id: StageWorker(spec) for spec in specs}
        self._submitted: deque[tuple[Assignment, Sequence[RenderRequest]]] = deque()
        self._outputs: dict[str, StageOutput] = {}
        self._threads = ThreadPoolExecutor(max(1, sum(spec.worker.video_slots for spec in specs)))
        self._ended: list[Completion] = []
        self._changes: list[Joined | Left] = [Joined(spec.worker) for spec in specs]
        self._videos: dict[Future[tuple[EncodedVideo | None, StageReport]], tuple[Assignment, float]] = {}

    def submit(self, assignment: Assignment, requests: Sequence[RenderRequest]) -> None:
        if assignment.worker_id not in self._workers:
            now = time.monotonic() - self._epoch
            report = StageReport(0.0, error=f"worker {assignment.worker_id} is gone")
            self._ended.append(Completion(assignment, now, now, report, Failure.QUEUED))
        elif assignment.stage is Stage.ENCODE_VIDEO:
            future = self._threads.submit(self._workers[assignment.worker_id].finish_video, *requests)
            self._videos[future] = assignment, time.monotonic() - self._epoch
        else:
            self._submitted.append((assignment, requests))

    def wait(self, timeout: float) -> list[Completion]:
        """Runs the oldest assignment to its end, however long that takes; without one, waits for an mp4."""
        if self._submitted:
            completions = [self._run(*self._submitted.popleft()), *self._finished_videos(timeout=0)]
        else:
            completions = self._finished_videos(timeout)
        for completion in completions:
            if completion.worker_lost:
                lost = completion.assignment
                self.end_worker(lost.worker_id, Failure.CRASH, completion.error or "", lost)
        completions += self._ended
        self._ended = []
        return completions

    def _run(self, assignment: Assignment, requests: Sequence[RenderRequest]) -> Completion:
        started = time.monotonic() - self._epoch
        payloads = [self._outputs.get(request.request_id) for request in requests]
        *outputs, report = self._workers[assignment.worker_id].run(assignment.stage, requests, *payloads)
        if report.error is None:
            made = zip(assignment.request_ids, outputs, strict=True)
            self._outputs |= {name: output for name, output in made if output is not None}
        video = next((output for output in outputs if isinstance(output, EncodedVideo)), None)
        finished = time.monotonic() - self._epoch
        started += report.load_seconds
        return Completion(assignment, started, finished, report, failure_of(report), video)

    def _finished_videos(self, timeout: float) -> list[Completion]:
        done, _ = wait(self._videos, timeout, FIRST_COMPLETED)
        return [self._finish_video(future) for future in done]

    def _finish_video(self, future: Future[tuple[EncodedVideo | None, StageReport]]) -> Completion:
        assignment, started = self._videos.pop(future)
        video, report = future.result()
        return Completion(assignment, started, time.monotonic() - self._epoch, report, failure_of(report), video)

    def changes(self) -> list[Joined | Left]:
        changes, self._changes = self._changes, []
        return changes

    @property
    def expected(self) -> frozenset[str]:
        return frozenset()

    def replace(self, worker_id: str) -> None:
        raise AssertionError("no worker of this process can return")

    def end_worker(self, worker_id: str, failure: Failure, reason: str, culprit: Assignment | None = None) -> None:
        """It is given nothing more, and what it was to do ends; an mp4 that it still makes is let go.

        None is ended for a hang: what has not moved here waits for its turn.
        """
        if failure is Failure.HANG:
            return
        if self._workers.pop(worker_id, None) is None:
            return
        self._changes.append(Left(worker_id, failure, reason, can_return=False))
        ended = [a for a, _ in self._submitted if a.worker_id == worker_id]
        ended += [a for a, _ in self._videos.values() if a.worker_id == worker_id]
        self._submitted = deque(item for item in self._submitted if item[0] not in ended)
        self._videos = {future: item for future, item in self._videos.items() if item[0] not in ended}
        now = time.monotonic() - self._epoch
        self._ended += [
            Completion(a, now, now, StageReport(0.0, error=reason), failure if culprit in (None, a) else Failure.QUEUED)
            for a in ended
        ]

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
        self._threads.shutdown(wait=True)
        self._workers.clear()
        self._outputs.clear()
