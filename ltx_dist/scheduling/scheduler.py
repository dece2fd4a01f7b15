"""Which request runs which stage on which worker next. Pure: ids, stages and counts; no tensor, clock or file."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ltx_dist.scheduling.costs import Costs, Unknown, seconds
from ltx_dist.scheduling.fleet import Fleet, Group
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
    earns most (see `Fleet.plan`: where workers are alike, all earn the same), is furthest downstream, and of it the
    request that was submitted first.

    The queue in front of every stage but the first is bounded by `placement.max_queued`; work in flight in the stage
    before it counts, so a finished stage always has room for its output. A wave of a time-sliced worker is nothing
    but that bound: it stays with its loaded stage until the next queue is full, then drains downstream.

    A worker leaves a request to a faster kind of worker when it would still be at it after those had ended all the
    rest: a slow card must not be the one that everybody waits for. The fastest kind leaves nothing.

    Liveness: while a request is neither finished nor in flight, some stage has ready work. Take the stage furthest
    downstream that has. Nothing is ready after it, so its output queue holds only requests in flight: either one of
    those is running, and its completion changes the state, or the queue is empty and the stage has room. Then
    a worker of the fastest kind that hosts the stage is idle, and gets it (or other eligible work), or busy, and its
    completion will come. So every state without work in flight, before `is_finished`, yields an assignment, and the
    batch cannot stall, while every stage has a worker; `unhosted_stage` tells when one has none left.

    A worker with `video_slots` is free as soon as its frames are on the host: the request's ENCODE_VIDEO then runs
    there beside the worker's next assignment, at once and without a queue. A decode is not begun while all slots are
    taken, and each is freed by a completion that will come, so the argument above holds.

    A request whose worker was lost returns to the front of its queue, which may exceed the bound by one a lost worker.
    One whose input was lost with its node begins again at the first stage.

    A decision takes a few steps on heaps, whatever the size of the batch or the number of workers of a kind.
    Time is what completions tell.
    """

    def __init__(self, placement: Placement, costs: Costs | None = None) -> None:
        self._costs = costs or Unknown()
        self._fleet = Fleet(self._costs)
        self._max_queued = dict(placement.max_queued)
        self._ready: dict[Stage, list[tuple[int, str]]] = {stage: [] for stage in STAGES}
        self._in_flight: dict[str, Assignment] = {}
        self._decoded: list[Assignment] = []
        self._encoding: dict[str, set[str]] = {}
        self._num_encoding = 0
        self._makes_videos: dict[str, bool] = {}
        self._running: dict[Stage, int] = dict.fromkeys(STAGES, 0)
        self._loaded: dict[str, Stage | None] = {}
        self._order: dict[str, int] = {}
        self._attempts: dict[str, int] = {}
        self._num_open = 0
        self._left = dict.fromkeys(STAGES, 0.0)
        self._planned_with = 0.0
        self._now = 0.0
        self._welcome(placement.workers)

    @property
    def is_finished(self) -> bool:
        """Every request that was added has its terminal result."""
        return self._num_open == 0

    @property
    def num_in_flight(self) -> int:
        return len(self._in_flight) + self._num_encoding

    @property
    def unhosted_stage(self) -> Stage | None:
        """The first stage that has work ready and no worker left that could do it."""
        return next((stage for stage in STAGES if self._ready[stage] and stage not in self._fleet.hosted), None)

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
            self._count_left(request_id, STAGES[STAGES.index(first) :], +1)
            self._enqueue(request_id, first)
        self._planned_with = 0.0

    def schedule(self) -> list[Assignment]:
        """Work for every idle worker that can have some; each assignment is now in flight until `update`."""
        if sum(self._left.values()) < self._planned_with / 2 or not self._planned_with:
            self._plan()
        assignments, self._decoded = self._decoded, []
        while taken := [a for group, worker in self._fleet.idle_groups() for a in self._take_all(group, worker)]:
            # What was taken may have made room upstream, for a worker that was asked before.
            assignments += taken
        return assignments

    def update(self, completion: Completion) -> list[Outcome]:
        """Take in the end of an assignment; returns the requests that ended with it (most often none or one)."""
        assignment = completion.assignment
        self._now = max(self._now, completion.finished)
        self._land(assignment)
        if completion.worker_lost:
            self._remove(assignment.worker_id)
            if assignment.stage is not Stage.ENCODE_VIDEO:
                return self._again(assignment.request_id, assignment.stage, completion.error)
            # Frames are lost with their worker, latents are not.
            self._count_left(assignment.request_id, (Stage.DECODE,), +1)
            return self._again(assignment.request_id, Stage.DECODE, completion.error)
        self._release(assignment.worker_id)
        if completion.input_lost:
            self._count_left(assignment.request_id, STAGES[: STAGES.index(assignment.stage)], +1)
            return self._again(assignment.request_id, STAGES[0], completion.error)
        if completion.error is not None:
            return [self._fail(assignment.request_id, assignment.stage, completion.error)]
        if assignment.worker_id in self._fleet and self._costs.observe(completion, self._fleet[assignment.worker_id]):
            self._planned_with = 0.0
        if assignment.stage in STAGES:
            self._count_left(assignment.request_id, (assignment.stage,), -1)
        if assignment.stage is Stage.DECODE and self._makes_videos[assignment.worker_id]:
            return self._encode_video(assignment)
        following = assignment.stage.following
        if following is None:
            return [self._finish(assignment.request_id, "done", None)]
        self._enqueue(assignment.request_id, following)
        return []

    def add_worker(self, worker: Worker, max_queued: dict[Stage, int]) -> None:
        """A worker joined: it is idle. `max_queued` are the bounds with it."""
        self._max_queued = dict(max_queued)
        self._welcome([worker])

    def _welcome(self, workers: Iterable[Worker]) -> None:
        for worker in workers:
            self._fleet.add([worker])
            self._encoding[worker.worker_id] = set()
            self._makes_videos[worker.worker_id] = worker.video_slots > 0
            self._loaded[worker.worker_id] = None
        self._plan()
        for worker in workers:
            self._release(worker.worker_id)

    def _plan(self) -> None:
        """Weigh the stages anew: the workers, what is left to do, or what it is thought to take have changed."""
        encode, denoise, decode = (max(self._left[stage], 0.0) for stage in STAGES)
        self._fleet.plan((encode, denoise, decode))
        self._planned_with = encode + denoise + decode

    def _encode_video(self, decode: Assignment) -> list[Outcome]:
        if decode.worker_id not in self._fleet:  # lost between its last frame and now
            self._count_left(decode.request_id, (Stage.DECODE,), +1)
            return self._again(decode.request_id, Stage.DECODE, "the frames were lost with their worker")
        self._encoding[decode.worker_id].add(decode.request_id)
        self._num_encoding += 1
        self._decoded.append(Assignment(decode.request_id, Stage.ENCODE_VIDEO, decode.worker_id))
        self._release(decode.worker_id)
        return []

    def _remove(self, worker_id: str) -> None:
        """A worker is lost, perhaps with several assignments, and with frames of clips not even begun to encode."""
        self._fleet.remove(worker_id)
        self._planned_with = 0.0
        for assignment in [waiting for waiting in self._decoded if waiting.worker_id == worker_id]:
            self._decoded.remove(assignment)
            self._encoding[worker_id].remove(assignment.request_id)
            self._num_encoding -= 1
            self._count_left(assignment.request_id, (Stage.DECODE,), +1)
            self._enqueue(assignment.request_id, Stage.DECODE)

    def _land(self, assignment: Assignment) -> None:
        """The assignment is in flight no more."""
        if assignment.stage is Stage.ENCODE_VIDEO:
            assert assignment.request_id in self._encoding[assignment.worker_id], f"{assignment} is not in flight"
            self._encoding[assignment.worker_id].remove(assignment.request_id)
            self._num_encoding -= 1
            return
        assert self._in_flight.get(assignment.worker_id) == assignment, f"{assignment} is not in flight"
        del self._in_flight[assignment.worker_id]
        self._running[assignment.stage] -= 1

    def _release(self, worker_id: str) -> None:
        """The worker is idle, unless it has work or is gone; its slots may have changed."""
        if worker_id in self._fleet and worker_id not in self._in_flight:
            slots = self._fleet[worker_id].video_slots
            has_slot = not slots or len(self._encoding[worker_id]) < slots
            self._fleet.set_idle(worker_id, self._loaded[worker_id], has_slot)

    def _take_all(self, group: Group, worker: Worker | None) -> list[Assignment]:
        """Work for the workers of the group, the first of which is given, while there is some for them."""
        taken: list[Assignment] = []
        while worker is not None and (stage := self._choose(worker, group)) is not None:
            taken.append(self._take(worker, stage))
            worker = self._fleet.first(group)
        return taken

    def _choose(self, worker: Worker, group: Group) -> Stage | None:
        rank = self._fleet.kind(worker).rank
        eligible = [
            stage
            for stage in worker.stages
            if self._ready[stage] and self._has_room_after(stage, group) and not self._outlasts_the_rest(worker, stage)
        ]
        return min(eligible, key=lambda stage: (group.loaded not in (None, stage), rank[stage]), default=None)

    def _has_room_after(self, stage: Stage, group: Group) -> bool:
        following = stage.following
        if following is None:
            return group.has_slot
        return len(self._ready[following]) + self._running[stage] < self._max_queued[following]

    def _outlasts_the_rest(self, worker: Worker, stage: Stage) -> bool:
        """Whether this worker would still be at the next request when faster ones had ended it and all the others."""
        faster = list(self._fleet.faster(worker, stage))
        if not faster:
            return False
        position, request_id = STAGES.index(stage), self._ready[stage][0][1]
        work, rate = self._costs.work(request_id, stage), self._fleet.kind(worker).rates[position]
        others_free = min(
            (max(kind.ends[0] - self._now, 0.0) if kind.ends else 0.0) + work / kind.rates[position] for kind in faster
        )
        others_end = self._left[stage] / (self._fleet.capacity[position] - rate)
        return work / rate > max(others_free, others_end)

    def _take(self, worker: Worker, stage: Stage) -> Assignment:
        _, request_id = heapq.heappop(self._ready[stage])
        assignment = Assignment(request_id, stage, worker.worker_id)
        self._in_flight[worker.worker_id] = assignment
        self._running[stage] += 1
        self._loaded[worker.worker_id] = stage
        self._fleet.set_busy(worker.worker_id, self._now, self._now + seconds(self._costs, request_id, stage, worker))
        return assignment

    def _enqueue(self, request_id: str, stage: Stage) -> None:
        heapq.heappush(self._ready[stage], (self._order[request_id], request_id))

    def _count_left(self, request_id: str, stages: Iterable[Stage], sign: int) -> None:
        for stage in stages:
            self._left[stage] += sign * self._costs.work(request_id, stage)

    def _fail(self, request_id: str, stage: Stage, error: str | None) -> Outcome:
        if stage in STAGES:
            self._count_left(request_id, STAGES[STAGES.index(stage) :], -1)
        return self._finish(request_id, "failed", error)

    def _finish(self, request_id: str, status: Literal["done", "failed"], error: str | None) -> Outcome:
        self._num_open -= 1
        self._attempts.pop(request_id, None)
        return Outcome(request_id, status, error)

    def _again(self, request_id: str, stage: Stage, error: str | None) -> list[Outcome]:
        self._attempts[request_id] = self._attempts.get(request_id, 0) + 1
        if self._attempts[request_id] >= MAX_ATTEMPTS:
            return [self._fail(request_id, stage, f"given up after {MAX_ATTEMPTS} attempts: {error}")]
        self._enqueue(request_id, stage)
        return []
