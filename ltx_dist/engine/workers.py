"""Handles workers that start, are lost, change, hang or fail repeatedly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ltx_dist.engine.deadlines import Deadlines, Standstill
from ltx_dist.engine.executor import Executor, Joined, Left
from ltx_dist.engine.failures import FailurePolicy
from ltx_dist.messages import first_line
from ltx_dist.pipeline.work import Completion, Failure
from ltx_dist.pipeline.worker import Worker
from ltx_dist.scheduling.scheduler import Scheduler

HANG_LOOK_SECONDS = 3.0
"""Seconds between two checks for hung workers, which poll each worker; the shortest limit is a minute."""


class WorkersLostError(RuntimeError):
    """No worker is left for a stage. Requests that wait for it do not fail: a rerun resumes."""


class Workers:
    """Keeps the scheduler, the deadlines and the executor in agreement about the workers.

    notice: called with a line for people about each worker that comes or goes. bounds: returns the bounds of the
    queues; called when a worker joins or changes. on_change: called before that with a worker that no longer holds its
    weights as planned.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        executor: Executor,
        policy: FailurePolicy,
        deadlines: Deadlines,
        notice: Callable[[str], None],
        bounds: Callable[[], Mapping[str, int]] | None,
        on_change: Callable[[Worker], None],
        clock: Callable[[], float],
    ) -> None:
        self._scheduler, self._executor, self._policy, self._deadlines = scheduler, executor, policy, deadlines
        self._notice, self._bounds, self._on_change = notice, bounds, on_change
        self._clock, self._standstill = clock, Standstill(clock)
        self._next_hang_look = 0.0
        self._last_loss: str | None = None

    def take_in(self, change: Joined | Left) -> None:
        if isinstance(change, Joined):
            self._joined(change.worker)
        else:
            self._left(change)

    def heed(self, completion: Completion) -> None:
        """Pass on the worker's notices, and schedule in waves if its components take turns from now on."""
        name, report = completion.assignment.worker_id, completion.report
        for line in report.notices:
            self._notice(f"worker {name}: {line}")
        if not report.takes_turns or not self._scheduler.has_worker(name):
            return
        worker = self._scheduler.worker(name)
        if worker.residency == "resident":
            changed = replace(worker, residency="time_sliced")
            self._on_change(changed)
            self._scheduler.change_worker(changed, self._bounds() if self._bounds else None)

    def drop_bad(self, completions: Sequence[Completion]) -> None:
        """End bad workers that are still running: errors alone end no worker."""
        for name in {c.assignment.worker_id for c in completions if c.failure is Failure.ERROR}:
            if self._policy.is_bad(name) and self._scheduler.can_do_without(name):
                self._executor.end_worker(name, Failure.QUEUED, "ended, because several clips in a row failed on it")

    def end_hung(self) -> None:
        now = self._clock()
        if gap := self._standstill.seconds():
            self._deadlines.stood_still(gap, now)
        if now < self._next_hang_look:
            return
        self._next_hang_look = now + HANG_LOOK_SECONDS
        self._deadlines.saw(self._executor.worker_states(), now)
        for assignment, reason in self._deadlines.overdue(now):
            self._executor.end_worker(assignment.worker_id, Failure.HANG, reason, assignment)

    def raise_if_none_is_left(self) -> None:
        """Raise WorkersLostError if nothing is running, and no worker that is there or starting could run what is
        left."""
        if self._scheduler.num_in_flight or self._executor.expected:
            return
        stage = self._scheduler.unhosted_stage
        assert stage is not None, "nothing in flight and requests are open: the scheduler stalled"
        if self._last_loss is None:
            # No worker was planned for it, because all of its outputs were on disk when the run began.
            raise WorkersLostError(
                f"the saved input of a clip is missing or damaged, and no worker of this run can run {stage}"
            )
        raise WorkersLostError(f"no worker is left that can run {stage}; the last one: {self._last_loss}")

    def _joined(self, worker: Worker) -> None:
        self._deadlines.joined(worker.worker_id, self._clock())
        if not self._scheduler.has_worker(worker.worker_id):
            self._scheduler.add_worker(worker, self._bounds() if self._bounds else None)
            self._notice(f"worker {worker.worker_id} joined")

    def _left(self, left: Left) -> None:
        self._deadlines.left(left.worker_id)
        self._last_loss = left.reason
        is_bad = self._policy.is_bad(left.worker_id) and self._scheduler.can_do_without(left.worker_id)
        if self._scheduler.has_worker(left.worker_id):
            self._scheduler.remove_worker(left.worker_id)
        if is_bad:
            what = "is no longer used, because clips kept failing on it"
        elif left.can_return:
            self._executor.replace(left.worker_id)
            what = "is being restarted"
        else:
            what = "is lost; the other workers continue"
        self._notice(f"worker {left.worker_id} {what}: {first_line(left.reason)}")
