"""What is on the devices, and since when."""

from __future__ import annotations

from dataclasses import replace

from ltx_dist.pipeline.work import Assignment


class UnderWay:
    """One assignment a device at most. Times are the scheduler's: what completions tell."""

    def __init__(self) -> None:
        self._by_worker: dict[str, Assignment] = {}
        self._begun: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._by_worker)

    def __contains__(self, worker_id: str) -> bool:
        return worker_id in self._by_worker

    def begin(self, assignment: Assignment, at: float) -> None:
        """`at`: when it starts to run, after its weights are loaded."""
        assert assignment.worker_id not in self, assignment
        self._by_worker[assignment.worker_id] = assignment
        self._begun[assignment.worker_id] = at

    def end(self, assignment: Assignment) -> None:
        """The assignment, or a part of one, is over; its device is free with the last part."""
        worker_id, ended = assignment.worker_id, assignment.request_ids
        running = self._by_worker.get(worker_id)
        assert running is not None and running.stage is assignment.stage, f"{assignment} is not in flight"
        rest = tuple(request_id for request_id in running.request_ids if request_id not in ended)
        assert len(rest) + len(ended) == len(running.request_ids), f"{assignment} is not in flight"
        if rest:
            self._by_worker[worker_id] = replace(running, request_ids=rest)
        else:
            del self._by_worker[worker_id], self._begun[worker_id]

    def all_began(self, at: float) -> None:
        """What was given out before anything had ended waited for its worker to load; all about as long."""
        self._begun = dict.fromkeys(self._begun, at)

    def seconds(self, now: float) -> dict[Assignment, float]:
        """For how long each has run; below 0 while its weights are loaded."""
        return {assignment: now - self._begun[worker_id] for worker_id, assignment in self._by_worker.items()}
