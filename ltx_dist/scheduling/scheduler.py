"""Which request runs which stage on which worker next. Pure: ids, stages and counts; no tensor, clock or file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

from ltx_dist.estimates.costs import Costs, Unknown, pass_seconds
from ltx_dist.pipeline.stages import STAGES, Stage
from ltx_dist.pipeline.work import Assignment, Completion
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.scheduling.choice import Choice, Left
from ltx_dist.scheduling.fleet import Fleet, Group
from ltx_dist.scheduling.queues import Alike, Queues, Retry, all_alike
from ltx_dist.scheduling.retries import Retries
from ltx_dist.scheduling.under_way import UnderWay
from ltx_dist.scheduling.video_slots import VideoSlots


class Scheduler:
    """Each idle worker takes, of the stages it hosts with work ready and room downstream, the one that needs no swap,
    feeds workers that may soon wait and cannot do it themselves, earns most (see `Fleet.plan`: where workers are alike,
    all earn the same), is furthest downstream, and of it the request that is first in order: as submitted, until
    `reorder` says another.

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

    Requests that are `alike` may share a pass of SHARED stages: the first that is ready and the next ones like it, as
    many as `Choice.number` says. It is one at least, so the argument above holds.

    An assignment ends in one of three ways: `update` if it went well, `retry`, or `fail`; which of the two is not
    decided here. A shared one may end in `parts`, of which each goes its own way; its worker is idle after the last. A
    request that is retried goes to the front of its queue, which may exceed the bound by one; with conditions on its
    pass it waits beside the queues and is given out first, so it waits for no more than the next idle worker that
    hosts its stage, or for one that is expected.

    A decision takes a few steps on heaps, whatever the size of the batch or the number of workers of a kind.
    Time is what completions tell.
    """

    def __init__(self, placement: Placement, costs: Costs | None = None, alike: Alike = all_alike) -> None:
        self._costs = costs or Unknown()
        self._fleet = Fleet(self._costs)
        self._queues = Queues(placement.max_queued, alike)
        self._left = Left(self._costs)
        self._choice = Choice(self._costs, self._fleet, self._queues, self._left)
        self._under_way = UnderWay()
        self._videos = VideoSlots()
        self._retries = Retries(self._fleet, self._videos)
        self._loaded: dict[str, Stage | None] = {}
        self._is_order_stale = False
        self._ordered_with = 0.0
        self._num_open = 0
        self._planned_with = 0.0
        self._now = 0.0
        self._welcome(placement.workers)

    @property
    def is_finished(self) -> bool:
        """Every request that was added has its terminal result."""
        return self._num_open == 0

    @property
    def num_in_flight(self) -> int:
        return len(self._under_way) + self._videos.num_taken

    @property
    def unhosted_stage(self) -> Stage | None:
        """The first stage that has work ready and no worker left that could do it."""
        return next((stage for stage in STAGES if self.num_queued(stage) and stage not in self._fleet.hosted), None)

    def num_queued(self, stage: Stage) -> int:
        """Requests ready for the stage and not yet taken by a worker."""
        return self._queues.num_waiting(stage)

    @property
    def max_queued(self) -> Mapping[Stage, int]:
        return self._queues.max_queued

    @property
    def is_order_stale(self) -> bool:
        """Whether an order is to be looked for: requests were added, workers have come or gone, costs have drifted, or
        half of the work was done since the last time."""
        return self._is_order_stale or self._left.total < self._ordered_with / 2

    def order_is_chosen(self) -> None:
        """One is being looked for that takes everything so far into account."""
        self._is_order_stale = False
        self._ordered_with = self._left.total

    def waiting(self) -> dict[str, Stage]:
        """Requests that wait in the queues and the stage of each, in the order in which they are given out."""
        return self._queues.ready()

    def running(self) -> dict[Assignment, float]:
        """What is on the devices, and for how many seconds it has run there; below 0 while its weights are loaded."""
        return self._under_way.seconds(self._now)

    def reorder(self, request_ids: Sequence[str]) -> None:
        """From now on these come in this order: they exchange their places among themselves, and no other moves. Of
        those that are on a worker by now, or done, it changes nothing but their place at stages to come.
        """
        self._queues.reorder(request_ids)

    def add(self, request_ids: Iterable[str], first: Stage = STAGES[0]) -> None:
        """Submit requests, in this order, each to begin at stage `first`: a resumed one has the stages before it.

        Ids are unique over the life of the scheduler. Resumed requests may fill a queue beyond its bound; nothing
        is put behind them until it has drained.
        """
        for request_id in request_ids:
            self._open(request_id, first)
            self._queues.put([request_id], first)
        self._planned_with = 0.0
        self._is_order_stale = True

    def add_running(self, assignment: Assignment, left: float) -> None:
        """Submit requests that are on a worker already, for so many seconds more: for a simulation that begins in the
        midst of a batch."""
        for request_id in assignment.request_ids:
            self._open(request_id, assignment.stage)
        self._assign(self._fleet[assignment.worker_id], assignment.stage, assignment.request_ids, left)

    def schedule(self, expected: Set[str] = frozenset()) -> list[Assignment]:
        """Work for every idle worker that can have some; each assignment is now in flight until it ends.

        expected: workers on their way. A retry that is to be alone waits for any of them, another for one that it need
        not avoid.
        """
        if self._left.total < self._planned_with / 2 or not self._planned_with:
            self._plan()
        assignments = [*self.finish_videos(), *self._take_retries(expected)]
        groups, turn, in_vain = self._fleet.idle_groups(), 0, 0
        while in_vain < len(groups):  # what was taken may have made room upstream, for workers that were asked before
            taken = self._take_all(groups[turn % len(groups)])
            assignments += taken
            turn, in_vain = turn + 1, 1 if taken else in_vain + 1
        return assignments

    def finish_videos(self) -> list[Assignment]:
        """Only what `schedule` would begin of the mp4s whose frames are there: for a run that begins nothing new."""
        return self._videos.begin()

    def update(self, completion: Completion) -> bool:
        """An assignment ended well. Whether its requests are done with it."""
        assignment = completion.assignment
        if not self._now:
            self._under_way.all_began(completion.started)
        self._now = max(self._now, completion.finished)
        decoded = assignment.stage is Stage.DECODE and self._videos.makes_videos(assignment.worker_id)
        self._land(assignment, stays_reserved=decoded)  # until its mp4 is made, too
        if self._costs.observe(completion, self._fleet[assignment.worker_id]):
            self._planned_with = 0.0
            self._is_order_stale = True
        if assignment.stage in STAGES:
            self._left.count(assignment.request_ids, (assignment.stage,), -1)
        if decoded:
            self._videos.fill(assignment)
            self._release(assignment.worker_id)
            return False
        following = assignment.stage.following
        if following is None:
            self._num_open -= len(assignment.request_ids)
            return True
        self._queues.put(assignment.request_ids, following)
        return False

    def retry(
        self,
        assignment: Assignment,
        stage: Stage,
        avoid: frozenset[str] = frozenset(),
        alone: bool = False,
        shares: bool = True,
    ) -> None:
        """An assignment did not end well, and its request goes on at `stage`: this one, or one before it.

        shares: a pass with others, if there are some like it then.
        """
        self._land(assignment)
        end = STAGES.index(assignment.stage) if assignment.stage in STAGES else len(STAGES)
        self._left.count(assignment.request_ids, STAGES[STAGES.index(stage) : end], +1)
        if shares and not avoid and not alone:
            self._queues.put(assignment.request_ids, stage)
            return
        for request_id in assignment.request_ids:
            self._queues.put_beside(Retry(request_id, stage, avoid, alone))

    def fail(self, assignment: Assignment) -> None:
        """An assignment did not end well, and its request is over."""
        self._land(assignment)
        if assignment.stage in STAGES:
            self._left.count(assignment.request_ids, STAGES[STAGES.index(assignment.stage) :], -1)
        self._num_open -= len(assignment.request_ids)

    def add_worker(self, worker: Worker, max_queued: Mapping[Stage, int] | None = None) -> None:
        """A worker is there and idle: a new one, or one that was removed. `max_queued`: the bounds from now on."""
        if max_queued is not None:
            self._queues.max_queued = dict(max_queued)
        self._welcome([worker])
        self._is_order_stale = True

    def remove_worker(self, worker_id: str) -> None:
        """A worker is gone. What it was running has ended before this; frames not begun to encode go with it."""
        assert worker_id not in self._under_way, worker_id
        self._fleet.remove(worker_id)
        self._retries.remove(worker_id)
        self._planned_with = 0.0
        self._is_order_stale = True
        lost = self._videos.remove(worker_id)
        self._left.count(lost, (Stage.DECODE,), +1)
        self._queues.put(lost, Stage.DECODE)

    def has_worker(self, worker_id: str) -> bool:
        return worker_id in self._fleet

    def can_do_without(self, worker_id: str) -> bool:
        """Whether other workers host all stages of this one."""
        if worker_id not in self._fleet:
            return False
        return all(self.hosts(stage) - {worker_id} for stage in self._fleet[worker_id].stages)

    def hosts(self, stage: Stage) -> frozenset[str]:
        """The workers there are for a stage; an mp4 is made where its frames are, so DECODE stands for it."""
        return self._fleet.hosts(Stage.DECODE if stage is Stage.ENCODE_VIDEO else stage)

    def _open(self, request_id: str, stage: Stage) -> None:
        self._queues.add(request_id)
        self._num_open += 1
        self._left.count([request_id], STAGES[STAGES.index(stage) :], +1)

    def _welcome(self, workers: Iterable[Worker]) -> None:
        for worker in workers:
            self._fleet.add([worker])
            self._videos.add(worker)
            self._loaded[worker.worker_id] = None
            self._retries.add(worker.worker_id)
        self._plan()
        for worker in workers:
            self._release(worker.worker_id)

    def _plan(self) -> None:
        """Weigh the stages anew: the workers, what is left to do, or what it is thought to take have changed."""
        encode, denoise, decode = (max(self._left.work[stage], 0.0) for stage in STAGES)
        self._fleet.plan((encode, denoise, decode))
        self._planned_with = encode + denoise + decode

    def _land(self, assignment: Assignment, stays_reserved: bool = False) -> None:
        """The assignment, or a part of one, is in flight no more, and its worker idle if it runs nothing else."""
        if assignment.stage is Stage.ENCODE_VIDEO:
            self._videos.end(assignment)
        else:
            self._under_way.end(assignment)
            self._queues.end(assignment.stage, len(assignment.request_ids))
        if not stays_reserved:
            self._retries.end(assignment.worker_id, assignment.request_ids)
        self._release(assignment.worker_id)

    def _take_retries(self, expected: Set[str]) -> list[Assignment]:
        taken: list[Assignment] = []
        for retry in list(self._queues.retries):
            if worker := self._retries.worker_for(retry, expected):
                self._queues.retries.remove(retry)
                taken.append(self._assign(worker, retry.stage, (retry.request_id,)))
                if retry.alone:
                    self._retries.reserve(worker.worker_id, retry.request_id)
        return taken

    def _release(self, worker_id: str) -> None:
        """The worker is idle, unless it has work; its slots may have changed."""
        if worker_id not in self._under_way and not self._retries.is_reserved(worker_id):
            self._fleet.set_idle(worker_id, self._loaded[worker_id], self._videos.has_slot(worker_id))

    def _take_all(self, group: Group) -> list[Assignment]:
        """Work for workers of the group while there is some for them; the last that was asked has found none."""
        taken: list[Assignment] = []
        while (worker := self._fleet.first(group)) is not None:
            stage = self._choice.stage(worker, group, self._now)
            if stage is None:
                break
            taken.append(self._take(worker, stage, group))
        return taken

    def _take(self, worker: Worker, stage: Stage, group: Group) -> Assignment:
        number = self._choice.number(worker, stage, group, self._now)
        return self._assign(worker, stage, self._queues.take(stage, number))

    def _assign(
        self, worker: Worker, stage: Stage, request_ids: tuple[str, ...], seconds: float | None = None
    ) -> Assignment:
        """seconds: that it still takes; None where it begins, and takes what is predicted."""
        assignment, name = Assignment(request_ids, stage, worker.worker_id), worker.worker_id
        swap = 0.0
        if seconds is None:
            seconds = pass_seconds(self._costs, assignment, worker)
            if worker.residency != "resident" and self._loaded[name] is not stage:
                swap = self._costs.swap_seconds(worker, stage)
        self._under_way.begin(assignment, self._now + swap)
        self._queues.begin(stage, len(request_ids))
        self._loaded[name] = stage
        self._retries.begin(name)
        self._fleet.set_busy(name, self._now, self._now + swap + seconds)
        return assignment
