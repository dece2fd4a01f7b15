"""What a failure means for the clip, for the worker that ran it, and for the run. Pure.

| what happened | charged | the clip | the worker |
|---|---|---|---|
| ERROR: the stage raised | yes | is retried once on another worker, if there is one or will be; else fails | stays |
| CRASH, HANG while it ran | yes | is retried on another worker; later tries run alone, on fresh ones | replaced |
| QUEUED: its worker died before it began | no | resumes at its stage | replaced |
| NODE_LOST, or preempted | no | resumes at its stage | gone; a node that joins brings new ones |
| INPUT_LOST with a node | no | resumes after its last output on disk, else at the first stage | stays |
| ERROR of a pass that several shared | no | is retried in a pass of its own | stays |
| CRASH, HANG of such a pass | each, once | is retried on another worker, in a pass of its own | replaced |

The separate reruns of a shared pass show which clip was at fault; a clip that was in one is not shared again at that
stage. The worker is charged one failure, not one for each clip.

A clip is given up after MAX_ATTEMPTS crashes or hangs at a stage, or later where workers also crash under clips that
succeed afterwards: see `_enough`. Failures that are not charged are bounded, too: a clip is given up after MAX_LOSSES.
A worker on which MAX_STREAK different clips in a row failed at a stage is dropped if others can do its work; failures
of a clip that failed on two workers count against neither. The run stops early when the first SYSTEMIC clips to end all
failed alike. Running out of device memory is not a failure yet: the worker tries its fallbacks by itself, and raises
after the last one. Output errors (a full disk) end the run.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Set
from dataclasses import dataclass, field

from ltx_dist.messages import first_line
from ltx_dist.pipeline.work import Assignment, Completion, Failure

MAX_ATTEMPTS = 3
"""Crashes and hangs at a stage after which a clip is given up, where no innocent clip had any."""

MOST_ATTEMPTS = 10
"""Maximum number of attempts at a stage, however often other clips crash."""

BY_CHANCE = 1e-3
"""A clip is blamed for its crashes if that many in a row have a lower probability than this for an innocent clip."""

MAX_ERRORS = 2
"""A clip fails when a stage has raised on this many workers: diffusers is deterministic, so one second try is
enough."""

MAX_LOSSES = 10
"""Maximum number of nodes and inputs that a clip may lose. This is not the clip's fault, but a batch must end."""

MAX_STREAK = 3
MAX_REMEMBERED = 4 * MAX_STREAK
"""Maximum length of a streak that is remembered: an irreplaceable worker's streak has no end."""

SYSTEMIC = 5


class SystemicError(RuntimeError):
    """All clips fail in the same way: what they share is wrong, and rendering the others would not help."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision on a clip after a failure: it has failed if `error` is set, otherwise it is retried.

    from_disk: it resumes after its last output on disk, else at the first stage, and not at the stage that failed.
    avoid: workers on which it failed. alone: it runs with nothing beside it, on a fresh worker. shares: whether it may
    share passes with other clips.
    """

    error: str | None = None
    from_disk: bool = False
    avoid: frozenset[str] = frozenset()
    alone: bool = False
    shares: bool = True


@dataclass(slots=True)
class _Record:
    """The failures so far of a clip that is not done yet.

    charged: crashes and hangs by stage. alone: by stage and worker, those in passes that no other clip shared.
    raised_on: by stage, the worker of each time that it raised. losses: failures that were not charged.
    shares: whether it may share passes with other clips.
    """

    charged: Counter[str] = field(default_factory=Counter[str])
    alone: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    raised_on: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    losses: int = 0
    shares: bool = True
    failed_on: set[str] = field(default_factory=set)


class FailurePolicy:
    """Records every completion, in order, and decides on failed ones."""

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}
        self._ended_well: Counter[str] = Counter()
        self._workers: set[str] = set()
        self._survived: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._streaks: dict[tuple[str, str], list[tuple[str, ...]]] = {}
        self._first_failures: list[str] | None = []

    def succeeded(self, completion: Completion, is_done: bool) -> None:
        """Record that a stage ended well; is_done: its clip is complete."""
        stage, request_ids = completion.assignment.stage, completion.assignment.request_ids
        self._workers.add(completion.assignment.worker_id)
        self._ended_well[stage] += len(request_ids) == 1
        for record in filter(None, map(self._records.get, request_ids)):
            for key in [key for key in record.alone if key[0] == stage]:
                self._survived[stage][key[1]] += record.alone.pop(key)
        self._streaks.pop((completion.assignment.worker_id, stage), None)
        if is_done:
            for request_id in request_ids:
                self._records.pop(request_id, None)
            self._first_failures = None  # what worked once is not wrong for all clips

    def judge(
        self, completion: Completion, request_id: str, hosts: Set[str], expected: Set[str] = frozenset()
    ) -> Verdict:
        """The decision on one of the assignment's clips.

        hosts: workers that can run the stage now; the one that failed may be missing. expected: workers that are
        starting, and may be able to run it.
        """
        assignment, failure = completion.assignment, completion.failure
        assert failure is not None, completion
        record = self._records.setdefault(request_id, _Record())
        self._workers.add(assignment.worker_id)
        if failure in (Failure.QUEUED, Failure.NODE_LOST, Failure.INPUT_LOST):
            record.losses += 1
            if record.losses >= MAX_LOSSES:
                return self._fail(completion, request_id, f"given up after {MAX_LOSSES} losses: {completion.error}")
            return self._again(record, assignment.stage, from_disk=failure is Failure.INPUT_LOST)
        is_shared = len(assignment.request_ids) > 1
        record.shares = record.shares and not is_shared
        if not (failure is Failure.ERROR and is_shared):
            record.failed_on.add(assignment.worker_id)
        self._blame(assignment, was_elsewhere=not is_shared and len(record.failed_on) > 1)
        if failure is not Failure.ERROR:
            record.charged[assignment.stage] += 1
            record.alone[assignment.stage, assignment.worker_id] += not is_shared
            attempts = record.charged[assignment.stage]
            if attempts >= self._enough(assignment.stage):
                why = f"given up after {attempts} attempts: {completion.error}"
                return self._fail(completion, request_id, why)
        elif not is_shared:
            raised_on = record.raised_on[assignment.stage]
            raised_on.append(assignment.worker_id)
            no_other = hosts | expected <= set(raised_on)
            if len(raised_on) >= MAX_ERRORS or no_other:
                return self._fail(completion, request_id, completion.error)
        return self._again(record, assignment.stage)

    def is_bad(self, worker_id: str) -> bool:
        """Whether so many different clips in a row failed at one stage on a worker that the worker is to blame."""
        return any(len(passes) >= MAX_STREAK for (name, _), passes in self._streaks.items() if name == worker_id)

    def check_systemic(self) -> None:
        """Raises SystemicError if the first clips to end all failed in the same way. Call it while clips are open."""
        first = self._first_failures
        if first is not None and len(first) >= SYSTEMIC and len(set(first)) == 1:
            raise SystemicError(f"the first {SYSTEMIC} clips all failed in the same way: {first[0]}")

    def _again(self, record: _Record, stage: str, from_disk: bool = False) -> Verdict:
        """A verdict to retry. What may be the last attempt runs alone in a fresh process, on any device."""
        may_be_last = record.charged[stage] >= MAX_ATTEMPTS - 1
        avoid = frozenset[str]() if may_be_last else frozenset(record.failed_on)
        return Verdict(from_disk=from_disk, avoid=avoid, alone=may_be_last, shares=record.shares)

    def _enough(self, stage: str) -> int:
        """Number of crashes or hangs at a stage after which a clip is given up.

        Where workers die whatever they run (somebody kills them, host memory is short, a card is loose), many innocent
        clips crash three times in a row. The chance that a pass of an innocent clip crashes is estimated from clips
        that have completed the stage: their crashes over all their passes, counting only passes that no other clip
        shared. If the run has had several workers, the crashes of the one with most are left out: it may be a bad one,
        which excuses nothing elsewhere.
        """
        by_worker, ended_well = self._survived[stage], self._ended_well[stage]
        survived = by_worker.total() - (max(by_worker.values(), default=0) if len(self._workers) > 1 else 0)
        if not survived:
            return MAX_ATTEMPTS
        share = (survived + 1) / (survived + ended_well + 2)  # Laplace's rule, for few passes
        return min(max(MAX_ATTEMPTS, math.ceil(math.log(BY_CHANCE) / math.log(share))), MOST_ATTEMPTS)

    def _blame(self, assignment: Assignment, was_elsewhere: bool) -> None:
        if was_elsewhere:  # it failed on two workers: the clip is to blame, also for shared passes
            (request_id,) = assignment.request_ids
            for streak in self._streaks.values():
                streak[:] = [failed for failed in streak if request_id not in failed]
            return
        streak = self._streaks.setdefault((assignment.worker_id, assignment.stage), [])
        if assignment.request_ids not in streak:
            streak.append(assignment.request_ids)
            del streak[:-MAX_REMEMBERED]

    def _fail(self, completion: Completion, request_id: str, error: str | None) -> Verdict:
        del self._records[request_id]
        if self._first_failures is not None and len(self._first_failures) < SYSTEMIC:
            self._first_failures.append(_signature(completion))
        return Verdict(error=error or "unknown")


def _signature(completion: Completion) -> str:
    """A text that is equal for failures of one cause: how the worker died, or the error's text without numbers."""
    if completion.failure is not Failure.ERROR:
        return f"{completion.assignment.stage}: {completion.failure}"
    return f"{completion.assignment.stage}: {re.sub(r'[0-9]+', '#', first_line(completion.error or ''))}"
