"""An executor on a virtual clock whose workers crash, hang, vanish and return as a test says."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from builders import RECIPE, STAGES, D, E, M, V

from ltx_dist.engine.executor import Joined, Left
from ltx_dist.pipeline.payloads import EncodedVideo, StageOutput
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.work import Assignment, Completion, Failure, StageReport, WorkerState
from ltx_dist.pipeline.worker import Placement, Worker

SECONDS = {E: 1.0, D: 10.0, V: 3.0, M: 1.0}
VIDEO = EncodedVideo(b"mp4", 9, 64, 64, "frames", "mp4")
NEVER = float("inf")

PATIENCE = 4.0
"""Virtual seconds of a wait in which nothing ends. Real waits are shorter, which would mean many turns in tests of
hangs."""

Ending = Failure | None


def make_request(request_id: str) -> RenderRequest:
    return RenderRequest(request_id, "p", "", 64, 64, 9, 25.0, 8, 3.0, 0.0, 0, 0.05, 0.025, 128)


def replicated(num_workers: int, host_slots: int = 1) -> Placement:
    workers = tuple(Worker(f"w{i}", STAGES, "cpu", i, host_slots=host_slots) for i in range(num_workers))
    return Placement(RECIPE, "replicated", workers, {D: 2 * num_workers, V: 2 * num_workers})


@dataclass
class _Running:
    started: float
    ends: float
    ending: Ending


class FakeExecutor:
    """`ending(assignment)` decides how each assignment ends: None means well, HANG means never.

    A worker that crashed is back `load_seconds` after `replace`; `returns` says whether it can come back.
    """

    def __init__(
        self,
        placement: Placement,
        ending: Callable[[Assignment], Ending] = lambda assignment: None,
        load_seconds: float = 5.0,
        returns: Callable[[str, Failure], bool] = lambda worker_id, failure: failure is not Failure.NODE_LOST,
    ) -> None:
        self._ending, self._load_seconds, self._returns = ending, load_seconds, returns
        self.now = 0.0
        self.workers = {worker.worker_id: worker for worker in placement.workers}
        self.up = set(self.workers)
        self.running: dict[Assignment, _Running] = {}
        self.started: list[tuple[Assignment, bool]] = []
        self.starts = dict.fromkeys(self.workers, 1)
        self.released: list[str] = []
        self._clean = set(self.workers)
        self._loading: list[tuple[float, str]] = []
        self._ended: list[Completion] = []
        self._changes: list[Joined | Left] = [Joined(worker) for worker in placement.workers]

    def submit(self, assignment: Assignment, requests: Sequence[RenderRequest]) -> None:
        if assignment.worker_id not in self.up:
            self.running[assignment] = _Running(self.now, self.now, Failure.QUEUED)
            self._complete(assignment, Failure.QUEUED, "its worker is gone")
            return
        ending = self._ending(assignment)
        seconds = NEVER if ending is Failure.HANG else SECONDS[assignment.stage] * len(requests)
        self.running[assignment] = _Running(self.now, self.now + seconds, ending)
        self.started.append((assignment, assignment.worker_id in self._clean))
        self._clean.discard(assignment.worker_id)

    def wait(self, timeout: float) -> list[Completion]:
        until = min([self.now + PATIENCE, *(run.ends for run in self.running.values()), *(t for t, _ in self._loading)])
        self.now = max(self.now, until)
        while self._loading and self._loading[0][0] <= self.now:
            _, worker_id = heapq.heappop(self._loading)
            self.join(self.workers[worker_id])
        for assignment, run in list(self.running.items()):
            if run.ends <= self.now and assignment in self.running:
                self.end(assignment, run.ending)
        ended, self._ended = self._ended, []
        return ended

    def end(self, assignment: Assignment, ending: Ending) -> None:
        if ending in (None, Failure.ERROR, Failure.INPUT_LOST):
            self._complete(assignment, ending, f"boom: {ending}")
        else:
            self.end_worker(assignment.worker_id, ending, f"boom: {ending}")

    def end_worker(self, worker_id: str, failure: Failure, reason: str, culprit: Assignment | None = None) -> None:
        if worker_id not in self.up:
            return
        self.up.discard(worker_id)
        self._changes.append(Left(worker_id, failure, reason, self._returns(worker_id, failure)))
        for assignment in [a for a in self.running if a.worker_id == worker_id]:
            self._complete(assignment, failure if culprit in (None, assignment) else Failure.QUEUED, reason)

    def join(self, worker: Worker) -> None:
        self.workers[worker.worker_id] = worker
        self.up.add(worker.worker_id)
        self._clean.add(worker.worker_id)
        self._changes.append(Joined(worker))

    def _complete(self, assignment: Assignment, ending: Ending, reason: str) -> None:
        run = self.running.pop(assignment)
        makes_video = assignment.stage == M
        report = StageReport(self.now - run.started, error=None if ending is None else reason)
        completion = Completion(assignment, run.started, self.now, report, ending)
        self._ended.append(replace(completion, video=VIDEO) if makes_video and ending is None else completion)

    def changes(self) -> list[Joined | Left]:
        changes, self._changes = self._changes, []
        return changes

    @property
    def expected(self) -> frozenset[str]:
        return frozenset(worker_id for _, worker_id in self._loading)

    def replace(self, worker_id: str) -> None:
        self.starts[worker_id] += 1
        heapq.heappush(self._loading, (self.now + self._load_seconds, worker_id))

    def fetcher(self, request_id: str, stage: str) -> Callable[[], StageOutput]:
        raise AssertionError("nothing is kept in these tests")

    def restore(self, request_id: str, stage: str, output: StageOutput) -> None:
        raise AssertionError("nothing is resumed in these tests")

    def release(self, request_id: str) -> None:
        self.released.append(request_id)

    def worker_states(self) -> list[WorkerState]:
        return []

    def shutdown(self) -> None: ...
