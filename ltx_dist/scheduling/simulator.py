"""The scheduler on a virtual clock: what a batch will do, without a device or a second spent."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

from ltx_dist.scheduling.placement import Placement
from ltx_dist.scheduling.scheduler import Scheduler
from ltx_dist.types import Assignment, Completion, StageReport


def simulate(
    placement: Placement, request_ids: Iterable[str], seconds: Callable[[Assignment], float]
) -> list[Completion]:
    """The completions of a whole batch in which each assignment takes `seconds(assignment)`, in order of their end."""
    scheduler = Scheduler(placement)
    scheduler.add(request_ids)
    completions: list[Completion] = []
    running: list[tuple[float, int, Assignment, float]] = []
    num_started = 0
    now = 0.0
    while not scheduler.is_finished:
        for assignment in scheduler.schedule():
            num_started += 1
            heapq.heappush(running, (now + seconds(assignment), num_started, assignment, now))
        assert running, "nothing in flight and requests are open: the scheduler stalled"
        now, _, assignment, started = heapq.heappop(running)
        completion = Completion(assignment, started, now, StageReport(now - started))
        completions.append(completion)
        scheduler.update(completion)
    return completions
