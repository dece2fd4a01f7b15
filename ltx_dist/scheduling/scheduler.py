"""Which request runs which stage on which worker next. Pure: ids, stages and counts; no tensor, clock or file."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ltx_dist.scheduling.placement import Placement, Worker
from ltx_dist.types import STAGES, Assignment, Completion, Stage

MAX_ATTEMPTS = 3
"""How often a request may lose its worker or its input before it is given up: it may be what kills them."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The terminal result of one request, exactly once."""

    request_id: str
    status: Literal["done", "failed"]
    error: str | None = None


class Scheduler:
    """Each idle worker takes, of the stages it hosts with work ready and room downstream, the one that needs no swap,
    is furthest downstream, and was submitted first.

    The queue in front of every stage but the first is bounded by `placement.max_queued`; work in flight in the stage
    before it counts, so a finished stage always has room for its output. A wave of a time-sliced worker is nothing
    but that bound: it stays with its loaded stage until the next queue is full, then drains downstream.

    Liveness: while a request is neither finished nor in flight, some stage has ready work. Take the stage furthest
    downstream that has. Nothing is ready after it, so its output queue holds only requests in flight: either one of
    those is running, and its completion changes the state, or the queue is empty and the stage has room. Then
    a worker that hosts the stage is idle, and gets it (or other eligible work), or busy, and its completion will come.
    So every state without work in flight, before `is_finished`, yields an assignment, and the batch cannot stall,
    while every stage has a worker; `unhosted_stage` tells when one has none left.

    A worker with `video_slots` is free as soon as its frames are on the host: the request's ENCODE_VIDEO then runs
    there beside the worker's next assignment, at once and without a queue. A decode is not begun while all slots are
    taken, and each is freed by a completion that will come, so the argument above holds.

    A request whose worker was lost returns to the front of its queue, which may exceed the bound by one a lost worker.
    One whose input was lost with its node begins again at the first stage.
    """

    def __init__(self, placement: Placement) -> None:
        self._workers: dict[str, Worker] = {worker.worker_id: worker for worker in placement.workers}
        self._max_queued = dict(placement.max_queued)
        self._ready: dict[Stage, list[tuple[int, str]]] = {stage: [] for stage in STAGES}
        self._in_flight: dict[str, Assignment] = {}
        self._decoded: list[Assignment] = []
        self._encoding: dict[str, set[str]] = {worker_id: set() for worker_id in self._workers}
        self._video_slots = {worker_id: worker.video_slots for worker_id, worker in self._workers.items()}
        self._running: dict[Stage, int] = dict.fromkeys(STAGES, 0)
        self._loaded: dict[str, Stage | None] = dict.fromkeys(self._workers)
        self._order: dict[str, int] = {}
        self._attempts: dict[str, int] = {}
        self._num_open = 0

    @property
    def is_finished(self) -> bool:
        """Every request that was added has its terminal result."""
        return self._num_open == 0

    @property
    def num_in_flight(self) -> int:
        return len(self._in_flight) + sum(map(len, self._encoding.values()))

    @property
    def unhosted_stage(self) -> Stage | None:
        """The first stage that has work ready and no worker left that could do it."""
        hosted = {stage for worker in self._workers.values() for stage in worker.stages}
        return next((stage for stage in STAGES if self._ready[stage] and stage not in hosted), None)

    def num_queued(self, stage: Stage) -> int:
        """Requests ready for the stage and not yet taken by a worker."""
        return len(self._ready[stage])

    def add(self, request_ids: Iterable[str], first: Stage = STAGES[0]) -> None:
        """Submit requests, in this order, each to begin at stage `first`: a resumed one has the stages before it.

        Ids are unique over the life of the scheduler. Resumed requests may fill a queue beyond its bound; nothing
        is put behind them until it has drained.
        """
        for request_id in request_ids:
            assert request_id not in self._order, request_id
            self._order[request_id] = len(self._order)
            self._num_open += 1
            self._enqueue(request_id, first)

    def schedule(self) -> list[Assignment]:
        """Work for every idle worker that can have some; each assignment is now in flight until `update`."""
        assignments, self._decoded = self._decoded, []
        while taken := [self._take(w, stage) for w in self._idle_workers() if (stage := self._choose(w)) is not None]:
            # What was taken may have made room upstream, for a worker that was asked before.
            assignments += taken
        return assignments

    def update(self, completion: Completion) -> list[Outcome]:
        """Take in the end of an assignment; returns the requests that ended with it (most often none or one)."""
        assignment = completion.assignment
        self._land(assignment)
        if completion.worker_lost:
            self._remove(assignment.worker_id)
            # Frames are lost with their worker, latents are not.
            stage = Stage.DECODE if assignment.stage is Stage.ENCODE_VIDEO else assignment.stage
            return self._again(assignment.request_id, stage, completion.error)
        if completion.input_lost:
            return self._again(assignment.request_id, STAGES[0], completion.error)
        if completion.error is not None:
            return [self._finish(assignment.request_id, "failed", completion.error)]
        if assignment.stage is Stage.DECODE and self._video_slots[assignment.worker_id]:
            return self._encode_video(assignment)
        following = assignment.stage.following
        if following is None:
            return [self._finish(assignment.request_id, "done", None)]
        self._enqueue(assignment.request_id, following)
        return []

    def _encode_video(self, decode: Assignment) -> list[Outcome]:
        if decode.worker_id not in self._workers:  # lost between its last frame and now
            return self._again(decode.request_id, Stage.DECODE, "the frames were lost with their worker")
        self._encoding[decode.worker_id].add(decode.request_id)
        self._decoded.append(Assignment(decode.request_id, Stage.ENCODE_VIDEO, decode.worker_id))
        return []

    def _remove(self, worker_id: str) -> None:
        """A worker is lost, perhaps with several assignments, and with frames of clips not even begun to encode."""
        self._workers.pop(worker_id, None)
        for assignment in [waiting for waiting in self._decoded if waiting.worker_id == worker_id]:
            self._decoded.remove(assignment)
            self._encoding[worker_id].remove(assignment.request_id)
            self._enqueue(assignment.request_id, Stage.DECODE)

    def _land(self, assignment: Assignment) -> None:
        """The assignment is in flight no more."""
        if assignment.stage is Stage.ENCODE_VIDEO:
            assert assignment.request_id in self._encoding[assignment.worker_id], f"{assignment} is not in flight"
            self._encoding[assignment.worker_id].remove(assignment.request_id)
            return
        assert self._in_flight.get(assignment.worker_id) == assignment, f"{assignment} is not in flight"
        del self._in_flight[assignment.worker_id]
        self._running[assignment.stage] -= 1

    def _idle_workers(self) -> list[Worker]:
        return [worker for worker_id, worker in self._workers.items() if worker_id not in self._in_flight]

    def _choose(self, worker: Worker) -> Stage | None:
        eligible = [stage for stage in worker.stages if self._ready[stage] and self._has_room_after(stage, worker)]
        return min(eligible, key=lambda stage: self._rank(worker, stage), default=None)

    def _rank(self, worker: Worker, stage: Stage) -> tuple[bool, int]:
        """Smaller is better. Submission order decides within a stage: its queue is a heap on it."""
        swaps = worker.residency == "time_sliced" and self._loaded[worker.worker_id] not in (None, stage)
        return swaps, -STAGES.index(stage)

    def _has_room_after(self, stage: Stage, worker: Worker) -> bool:
        following = stage.following
        if following is None:
            return not worker.video_slots or len(self._encoding[worker.worker_id]) < worker.video_slots
        return len(self._ready[following]) + self._running[stage] < self._max_queued[following]

    def _take(self, worker: Worker, stage: Stage) -> Assignment:
        _, request_id = heapq.heappop(self._ready[stage])
        assignment = Assignment(request_id, stage, worker.worker_id)
        self._in_flight[worker.worker_id] = assignment
        self._running[stage] += 1
        self._loaded[worker.worker_id] = stage
        return assignment

    def _enqueue(self, request_id: str, stage: Stage) -> None:
        heapq.heappush(self._ready[stage], (self._order[request_id], request_id))

    def _finish(self, request_id: str, status: Literal["done", "failed"], error: str | None) -> Outcome:
        self._num_open -= 1
        self._attempts.pop(request_id, None)
        return Outcome(request_id, status, error)

    def _again(self, request_id: str, stage: Stage, error: str | None) -> list[Outcome]:
        self._attempts[request_id] = self._attempts.get(request_id, 0) + 1
        if self._attempts[request_id] >= MAX_ATTEMPTS:
            return [self._finish(request_id, "failed", f"given up after {MAX_ATTEMPTS} attempts: {error}")]
        self._enqueue(request_id, stage)
        return []
