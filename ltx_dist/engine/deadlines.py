"""Finds assignments that have made no progress for too long. What is done about them is decided by the caller.

`Deadlines` is pure: time is passed to it. Only `Standstill` reads a clock, which tests replace.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

from ltx_dist.pipeline.recipe import Recipe
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.work import Assignment, Completion, WorkerState

LONGEST_TURN_SECONDS = 5.0
"""Longest gap between two iterations of the loop that counts as normal. An iteration waits half a second at most; the
rest allows for slow disks and a busy host."""


class Standstill:
    """Detects that this process stood still between two iterations of a loop: SIGSTOP, Ctrl-Z, a debugger, a frozen VM.

    Clocks and workers keep running meanwhile, so deadlines that counted the gap would end healthy workers.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()

    def seconds(self) -> float:
        """Seconds that this process stood still since the last call; 0 after a normal iteration."""
        now = self._clock()
        passed, self._last = now - self._last, now
        return passed if passed > LONGEST_TURN_SECONDS else 0.0


LEAST_SECONDS = 60.0
"""Nothing counts as hung before this many seconds: a busy host, a slow link or a first kernel takes time."""

FACTOR = 5.0
"""A step or a stage may take this many times its median."""

FIRST_SECONDS = 1800.0
"""Limit while no median is known: one step of the largest model on a CPU stays below it."""

NEWS_SECONDS = 30.0
"""Seconds after a standstill of the driver before anything counts as hung: it has yet to read the workers' progress."""

KEPT = 31
"""Number of most recent times over which a stage's median is taken."""


@dataclass(frozen=True, slots=True)
class _Load:
    """The work of a pass: its number of clips, and height x width x frames of the largest."""

    number: int
    size: float

    def most(self, seconds: float, other: _Load) -> float:
        """Seconds this may take, if `other` took `seconds`: attention grows with the square of a clip's size."""
        return seconds * max(1.0, self.size / other.size) ** 2 * max(1.0, self.number / other.number)


@dataclass(slots=True)
class _Watch:
    """The progress of one assignment.

    since: when it last made progress. begun: when it began. Both are None until its worker is up.
    step: steps done. is_timed: False if the driver stood still since the last step, so that the time of this step is
    unknown. attempt: as in WorkerState.
    """

    load: _Load
    num_steps: int
    since: float | None
    begun: float | None
    step: int = 0
    is_timed: bool = True
    attempt: int = 0


class Deadlines:
    """Follows assignments from the moment that their worker is up.

    Loading a model does not count as a hang: never in a worker that is starting, and for up to FIRST_SECONDS in one
    that reads weights between stages. A stage with steps makes progress with each of them, any other when it ends.
    Running out of memory is progress, too: the next attempt begins from the start, and has the time of a new stage.
    Larger clips than those seen, and more clips in a pass, are allowed more time, see `_Load`. A device stage that
    blocks its process also stops the host stages there, so a host stage is only charged the time until that device
    stage last made progress.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._watched: dict[Assignment, _Watch] = {}
        self._up: set[str] = set()
        self._seen: dict[str, deque[tuple[float, _Load]]] = {stage: deque(maxlen=KEPT) for stage in recipe.names}

    def joined(self, worker_id: str, now: float) -> None:
        self._up.add(worker_id)
        for assignment, watch in self._watched.items():
            if assignment.worker_id == worker_id:
                watch.since = watch.begun = now

    def left(self, worker_id: str) -> None:
        self._up.discard(worker_id)

    def begin(self, assignment: Assignment, requests: Sequence[RenderRequest], now: float) -> None:
        size = max(float(request.width * request.height * request.num_frames) for request in requests)
        since = now if assignment.worker_id in self._up else None
        self._watched[assignment] = _Watch(
            _Load(len(requests), size), self._num_steps(assignment, requests[0]), since, since
        )

    def end(self, completion: Completion) -> None:
        watch = self._watched.pop(completion.assignment)
        if completion.failure is None:
            # Steps are only seen if they are slower than the polling of workers; this covers the others, too.
            moves = max(watch.num_steps, 1)
            self._seen[completion.assignment.stage].append((completion.report.seconds / moves, watch.load))

    def saw(self, states: Iterable[WorkerState], now: float) -> None:
        """Record the reported states of workers."""
        for state in states:
            if state.stage is None:
                continue
            watch = self._watched.get(Assignment(state.request_ids, state.stage, state.worker_id))
            if watch is None or watch.since is None or watch.begun is None:
                continue
            if state.is_loading and now - watch.begun < FIRST_SECONDS:
                watch.since = now  # 9.5 GB of T5 from a slow disk take longer than any median of encoding allows
            if state.attempt != watch.attempt:
                watch.attempt, watch.step, watch.since = state.attempt, 0, now
            if state.step <= watch.step:
                continue
            if watch.step and watch.is_timed:  # the first step includes swapping the weights in
                self._seen[state.stage].append(((now - watch.since) / (state.step - watch.step), watch.load))
            watch.step, watch.since, watch.is_timed = state.step, now, True

    def stood_still(self, seconds: float, now: float) -> None:
        """Record that the driver did nothing for this many seconds, up to now: it was stopped, or its machine frozen.

        That time counts for no assignment, and workers are polled again before any counts as hung.
        """
        for assignment, watch in self._watched.items():
            if watch.since is None or watch.begun is None:
                continue
            latest = now + NEWS_SECONDS - self._allowed(assignment.stage, watch.load)
            watch.since = min(now, max(watch.since + seconds, latest))
            watch.begun += seconds
            watch.is_timed = False

    def under_way(self) -> Iterable[Assignment]:
        return self._watched.keys()

    def overdue(self, now: float) -> list[tuple[Assignment, str]]:
        """Assignments that made no progress for longer than allowed, each with a one-line reason."""
        found: list[tuple[Assignment, str]] = []
        for assignment, watch in self._watched.items():
            allowed = self._allowed(assignment.stage, watch.load)
            if watch.since is not None and self._last_alive(assignment, now) - watch.since > allowed:
                where = f", step {watch.step + 1} of {watch.num_steps}" if watch.num_steps else ""
                waited = f"no progress for {now - watch.since:.0f} s (limit {allowed:.0f} s)"
                found.append((assignment, f"hung in {assignment.stage} of {assignment.clips}{where}: {waited}"))
        return found

    def _last_alive(self, assignment: Assignment, now: float) -> float:
        """The latest time at which the assignment's process was certainly able to make progress with it."""
        if self._recipe[assignment.stage].runs_on == "device":
            return now
        beside = (
            watch.since
            for other, watch in self._watched.items()
            if other.worker_id == assignment.worker_id and self._recipe[other.stage].runs_on == "device"
        )
        return min((since for since in beside if since is not None), default=now)

    def _num_steps(self, assignment: Assignment, request: RenderRequest) -> int:
        """Number of steps that the stage reports; 0 if it makes progress only by ending."""
        counted = self._recipe[assignment.stage].steps
        return attrgetter(counted)(request) if counted else 0

    def _allowed(self, stage: str, load: _Load) -> float:
        seen = self._seen[stage]
        if not seen:
            return FIRST_SECONDS
        return max(LEAST_SECONDS, FACTOR * statistics.median(load.most(seconds, other) for seconds, other in seen))
