"""Which request runs which stage on which worker next. Pure: ids, stages and counts; no tensor, clock or file."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence, Set
from typing import NamedTuple

from ltx_dist.estimates.costs import Costs, UniformCosts, pass_seconds
from ltx_dist.pipeline.work import Assignment, Completion
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.scheduling.fleet import Fleet, Group
from ltx_dist.scheduling.in_flight import HostSlots, OnDevices, OpenRequests
from ltx_dist.scheduling.policy import AssignmentPolicy, RemainingWork, Retries
from ltx_dist.scheduling.queues import BatchKey, Queues, Retry, one_key


class Order(NamedTuple):
    """How waiting requests are to be taken up; see `Scheduler.reorder`."""

    request_ids: Sequence[str]
    upstream_first: bool = False


class Scheduler:
    """Each idle worker takes, of the stages it hosts with work ready and room downstream, the one that needs no swap,
    feeds workers that may soon wait and cannot do it themselves, earns most (see `Fleet.plan`: where workers are alike,
    all earn the same), and is furthest downstream, or upstream if `reorder` says so. Of its queue it takes the first
    request: in the order of submission, until `reorder` gives another.

    A request runs an ordered subset of the recipe's stages. The queue in front of every device stage but the first is
    bounded by `placement.max_queued`; requests in flight on their way to it count, so a finished stage always has room
    for its output. A wave of a time-sliced worker is nothing but that bound: it stays with its loaded components until
    the next queue is full, then drains downstream.

    A worker leaves a request to a faster kind of worker when it would still be at it after those had ended all the
    rest: a slow card must not be the one that everybody waits for. The fastest kind leaves nothing.

    Host stages run on the worker that ran the device stage before them, beside its next assignment, at once and
    without a queue. That device stage is not begun unless one of the worker's `host_slots` is free.

    Liveness: while a request is neither finished nor in flight, some device stage has ready work. Take the one furthest
    downstream. The next device stage of its first request has nothing ready, so the queue there holds only requests in
    flight: either one of those is running, and its completion changes the state, or the queue is empty and the stage
    has room. A slot that is taken belongs to a request in flight, too. Then a worker of the fastest kind that hosts the
    stage is idle, and gets it (or other eligible work), or busy, and its completion will come. So every state without
    work in flight, before `is_finished`, yields an assignment, and the batch cannot stall while every stage has a
    worker; `unhosted_stage` names one that has none left.

    Requests with equal batch keys may share a pass of a stage that allows it: the first that is ready and the next ones
    like it, as many as `AssignmentPolicy.number` says. This is at least one, so the argument above holds.

    An assignment ends in one of three ways: `update` if it went well, else `retry` or `fail`, as `engine/failures.py`
    decides. A shared one may end in `parts`, each in a way of its own; its worker is idle after the last. A
    request that is retried goes to the front of its queue, which may exceed the bound by one; with conditions on its
    pass it waits beside the queues and is given out first, so it waits for no more than the next idle worker that
    hosts its stage, or for one that is expected.

    A decision takes a few steps on heaps, whatever the size of the batch or the number of workers of a kind.
    Time is what completions tell.
    """

    def __init__(self, placement: Placement, costs: Costs | None = None, batch_key: BatchKey = one_key) -> None:
        self.recipe = placement.recipe
        self._on_device = frozenset(self.recipe.on_device)
        self._costs = costs or UniformCosts()
        self._batch_key = batch_key
        self._fleet = Fleet(self.recipe, self._costs)
        self._requests = OpenRequests(self._on_device)
        self._queues = Queues(self.recipe.on_device, placement.max_queued, self._queue_key)
        self._remaining = RemainingWork(self.recipe.on_device, self._costs)
        self._policy = AssignmentPolicy(
            self.recipe, self._costs, self._fleet, self._queues, self._requests, self._remaining
        )
        self._on_devices = OnDevices()
        self._slots = HostSlots()
        self._on_hosts: set[Assignment] = set()
        self._host_ready: list[Assignment] = []
        self._retries = Retries(self._fleet, self._slots, self._requests)
        self._loaded: dict[str, frozenset[str]] = {}
        self._planned_with = 0.0
        self._upstream_first = False
        self._now = 0.0
        self.revision = 0
        for worker in placement.workers:
            self.add_worker(worker)

    @property
    def is_finished(self) -> bool:
        """Whether every request that was added has its terminal result."""
        return not self._requests

    @property
    def num_in_flight(self) -> int:
        return len(self._on_devices) + len(self._on_hosts) + len(self._host_ready)

    @property
    def unhosted_stage(self) -> str | None:
        """The first stage that has work ready and no worker left that could do it."""
        waiting = (stage for stage in self.recipe.on_device if self.num_queued(stage))
        return next((stage for stage in waiting if stage not in self._fleet.hosted), None)

    def num_queued(self, stage: str) -> int:
        """Requests ready for the stage and not yet taken by a worker."""
        return self._queues.num_waiting(stage)

    @property
    def remaining_work(self) -> float:
        """Work left in all device stages, in the unit of the costs."""
        return self._remaining.total

    def waiting(self) -> dict[str, tuple[str, ...]]:
        """Requests that wait in the queues, in order, and the stages that each has to run."""
        return {request_id: self._requests.left(request_id) for request_id in self._queues.ready()}

    def running(self) -> dict[Assignment, float]:
        """The assignments on devices, with the seconds that each has run; below 0 while its weights are loaded."""
        return self._on_devices.seconds(self._now)

    def left(self, request_id: str) -> tuple[str, ...]:
        """The stages that an open request has to run, including the current one."""
        return self._requests.left(request_id)

    @property
    def upstream_first(self) -> bool:
        """Whether workers prefer the stage furthest upstream, of those that earn the same."""
        return self._upstream_first

    def reorder(self, request_ids: Sequence[str], upstream_first: bool = False) -> None:
        """Put these requests into this order: they exchange their places among themselves, and no other moves. For
        those that are on a worker by now, or done, only their place at stages to come changes.

        upstream_first: workers that host several stages run the first ones of all requests first, as far as there is
        room downstream. Clips end later, but their last passes are shared out among all workers. This holds until
        requests, workers or costs change.
        """
        self._queues.reorder(request_ids)
        if upstream_first != self._upstream_first:
            self._upstream_first = upstream_first
            self._plan()

    @property
    def max_queued(self) -> Mapping[str, int]:
        return self._queues.max_queued

    def add(self, request_ids: Iterable[str], todo: Sequence[str]) -> None:
        """Submit requests, in this order, each to run these stages of the recipe; the first needs a device.

        Ids are unique over the life of the scheduler. Requests that begin at a later stage may fill a queue beyond its
        bound; nothing is put behind them until it has drained.
        """
        for request_id in request_ids:
            self._queues.add(request_id)
            self._open(request_id, todo)
            self._queues.put(request_id, todo[0])
        self._changed()

    def add_running(self, assignment: Assignment, todo: Mapping[str, Sequence[str]], seconds: float) -> None:
        """Submit requests that are on a worker for this many seconds: for a simulation that begins in mid-batch."""
        for request_id in assignment.request_ids:
            self._queues.add(request_id)
            self._open(request_id, todo[request_id])
        self._assign(self._fleet[assignment.worker_id], assignment.stage, assignment.request_ids, seconds)

    def schedule(self, expected: Set[str] = frozenset()) -> list[Assignment]:
        """Assignments for all idle workers that there is work for; each is in flight from now until it ends.

        expected: workers that are starting. Retries wait for them: one that is to run alone for any of them, others for
        one on which they have not failed.
        """
        if self._remaining.total < self._planned_with / 2 or not self._planned_with:
            self._plan()
        assignments = [*self.begin_host_stages(), *self._take_retries(expected)]
        groups, turn, in_vain = self._fleet.idle_groups(), 0, 0
        while in_vain < len(groups):  # what was taken may have made room upstream, for workers that were asked before
            taken = self._take_all(groups[turn % len(groups)])
            assignments += taken
            turn, in_vain = turn + 1, 1 if taken else in_vain + 1
        return assignments

    def begin_host_stages(self) -> list[Assignment]:
        """The part of `schedule` that begins host stages, for a run that begins nothing new on its devices."""
        assignments, self._host_ready = self._host_ready, []
        self._on_hosts.update(assignments)
        return assignments

    def update(self, completion: Completion) -> bool:
        """An assignment ended well. Returns whether its requests are done with it."""
        assignment = completion.assignment
        if not self._now:
            self._on_devices.all_began(completion.started)
        self._now = max(self._now, completion.finished)
        self._end(assignment)
        if self._costs.observe(completion, self._fleet[assignment.worker_id]):
            self._changed()
        is_done = [self._advance(request_id, assignment) for request_id in assignment.request_ids]
        self._release(assignment.worker_id)
        return all(is_done)

    def retry(
        self,
        assignment: Assignment,
        todo: Sequence[str],
        avoid: frozenset[str] = frozenset(),
        alone: bool = False,
        shares: bool = True,
    ) -> None:
        """An assignment did not end well, and its requests have these stages to run from now on.

        shares: a pass with others, if there are some like it then.
        """
        self._land(assignment)
        for request_id in assignment.request_ids:
            self._remaining.count(request_id, self._requests.device_stages_left(request_id), -1)
            self._open(request_id, todo)
            if shares and not avoid and not alone:
                self._queues.put(request_id, todo[0])
            else:
                self._queues.put_beside(Retry(request_id, todo[0], avoid, alone))

    def fail(self, assignment: Assignment) -> None:
        """An assignment did not end well, and its requests are over."""
        self._land(assignment)
        for request_id in assignment.request_ids:
            self._remaining.count(request_id, self._requests.device_stages_left(request_id), -1)
            self._requests.close(request_id)

    def add_worker(self, worker: Worker, max_queued: Mapping[str, int] | None = None) -> None:
        """A worker is there and idle: a new one, or one that was removed. `max_queued`: the bounds from now on."""
        if max_queued is not None:
            self._queues.max_queued = dict(max_queued)
        self._fleet.add(worker)
        self._slots.add(worker)
        self._loaded[worker.worker_id] = frozenset()
        self._retries.add(worker.worker_id)
        self._release(worker.worker_id)
        self._changed()

    def change_worker(self, worker: Worker, max_queued: Mapping[str, int] | None = None) -> None:
        """Change how a worker holds its weights; its current work continues."""
        if max_queued is not None:
            self._queues.max_queued = dict(max_queued)
        self._fleet.remove(worker.worker_id)
        self._fleet.add(worker)
        self._release(worker.worker_id)
        self._changed()

    def worker(self, worker_id: str) -> Worker:
        return self._fleet[worker_id]

    def remove_worker(self, worker_id: str) -> None:
        """Remove a lost worker. Its assignments must have ended before; outputs that wait for a host stage are lost."""
        assert worker_id not in self._on_devices, worker_id
        lost = [assignment for assignment in self._host_ready if assignment.worker_id == worker_id]
        self._host_ready = [assignment for assignment in self._host_ready if assignment not in lost]
        for assignment in lost:
            (request_id,) = assignment.request_ids
            self._leave(request_id, worker_id)
            stage = self._requests.go_back(request_id)
            self._remaining.count(request_id, [stage], +1)
            self._queues.put(request_id, stage)
        self._fleet.remove(worker_id)
        self._retries.remove(worker_id)
        self._slots.remove(worker_id)
        self._changed()

    def has_worker(self, worker_id: str) -> bool:
        return worker_id in self._fleet

    def can_do_without(self, worker_id: str) -> bool:
        """Whether other workers host all stages of this one."""
        if worker_id not in self._fleet:
            return False
        return all(self._fleet.hosts(stage) - {worker_id} for stage in self._fleet[worker_id].stages)

    def hosts(self, assignment: Assignment) -> frozenset[str]:
        """The workers that could run an open assignment again: for a host stage, those of the device stage before."""
        return self._fleet.hosts(self._requests.device_stage(assignment.request_ids[0]))

    def _changed(self) -> None:
        """Requests, workers or costs are others than those planned with: `schedule` plans again."""
        self._planned_with = 0.0
        self._upstream_first = False
        self.revision += 1

    def _queue_key(self, stage: str, request_id: str) -> Hashable:
        """Requests that share a pass have the same way before them, so that the room for one is room for all."""
        return self._batch_key(stage, request_id), self._requests.following(request_id)

    def _open(self, request_id: str, todo: Sequence[str]) -> None:
        self._requests.open(request_id, todo)
        self._remaining.count(request_id, self._requests.device_stages_left(request_id), +1)

    def _plan(self) -> None:
        """Rank the stages again: the workers, what is left to do, or what it is thought to take have changed."""
        left = tuple(max(self._remaining.work[stage], 0.0) for stage in self.recipe.on_device)
        self._fleet.plan(left, self._upstream_first)
        self._planned_with = sum(left)

    def _end(self, assignment: Assignment) -> None:
        if assignment.stage in self._on_device:
            self._on_devices.end(assignment)
        else:
            assert assignment in self._on_hosts, f"{assignment} is not in flight"
            self._on_hosts.remove(assignment)

    def _advance(self, request_id: str, assignment: Assignment) -> bool:
        """The request is done with this stage. Returns whether it was its last."""
        if assignment.stage in self._on_device:
            self._remaining.count(request_id, [assignment.stage], -1)
        needs_host, _ = self._requests.following(request_id)
        if not needs_host:
            self._leave(request_id, assignment.worker_id)
        stage = self._requests.advance(request_id)
        if stage is None:
            self._requests.close(request_id)
        elif needs_host:
            self._host_ready.append(Assignment((request_id,), stage, assignment.worker_id))
        else:
            self._queues.put(request_id, stage)
        return stage is None

    def _land(self, assignment: Assignment) -> None:
        """End the assignment, or a part of one; its worker becomes idle if it runs nothing else."""
        self._end(assignment)
        for request_id in assignment.request_ids:
            self._leave(request_id, assignment.worker_id)
        self._release(assignment.worker_id)

    def _leave(self, request_id: str, worker_id: str) -> None:
        """The request has left the worker, its host included."""
        _, following = self._requests.following(request_id)
        self._queues.expect(following, -1)
        self._slots.free(worker_id, request_id)
        self._retries.end(worker_id, request_id)

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
        if worker_id not in self._on_devices and not self._retries.is_reserved(worker_id):
            self._fleet.set_idle(worker_id, self._loaded[worker_id], self._slots.num_free(worker_id))

    def _take_all(self, group: Group) -> list[Assignment]:
        """Work for workers of the group while there is some for them; the last that was asked has found none."""
        taken: list[Assignment] = []
        while (worker := self._fleet.first(group)) is not None:
            stage = self._policy.stage(worker, group, self._now)
            if stage is None:
                break
            number = self._policy.number(worker, stage, group, self._now)
            taken.append(self._assign(worker, stage, self._queues.take(stage, number)))
        return taken

    def _assign(
        self, worker: Worker, stage: str, request_ids: tuple[str, ...], seconds: float | None = None
    ) -> Assignment:
        """seconds: that it still takes; None where it begins, and takes what is predicted."""
        assignment, name = Assignment(request_ids, stage, worker.worker_id), worker.worker_id
        components = frozenset(self.recipe[stage].components)
        swap = 0.0
        if seconds is None:
            seconds = pass_seconds(self._costs, assignment, worker)
            if worker.residency != "resident":
                swap = self._costs.swap_seconds(worker, components - self._loaded[name])
        self._on_devices.begin(assignment, self._now + swap)
        needs_slot, following = self._requests.following(request_ids[0])
        self._queues.expect(following, len(request_ids))
        if needs_slot:
            self._slots.take(name, request_ids)
        self._loaded[name] = components
        self._retries.begin(name)
        self._fleet.set_busy(name, self._now, self._now + swap + seconds)
        return assignment
