"""Tracks assignments in flight, the host slots that they take, and where each open request is in its stages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ltx_dist.pipeline.work import Assignment
from ltx_dist.pipeline.worker import Worker


class OnDevices:
    """At most one assignment per device. Times are the scheduler's: what completions tell."""

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
        assert running is not None and running.stage == assignment.stage, f"{assignment} is not in flight"
        rest = tuple(request_id for request_id in running.request_ids if request_id not in ended)
        assert len(rest) + len(ended) == len(running.request_ids), f"{assignment} is not in flight"
        if rest:
            self._by_worker[worker_id] = replace(running, request_ids=rest)
        else:
            del self._by_worker[worker_id], self._begun[worker_id]

    def all_began(self, at: float) -> None:
        """Assignments given out before anything ended waited for their workers to load, all about equally long."""
        self._begun = dict.fromkeys(self._begun, at)

    def seconds(self, now: float) -> dict[Assignment, float]:
        """For how long each has run; below 0 while its weights are loaded."""
        return {assignment: now - self._begun[worker_id] for worker_id, assignment in self._by_worker.items()}


Following = tuple[bool, str | None]
"""Whether a host stage follows the current stage, and the next device stage, None if there is none."""


@dataclass(slots=True)
class _Position:
    """following: of each stage of `todo`. index: of the current one."""

    todo: tuple[str, ...]
    following: tuple[Following, ...]
    index: int = 0


class OpenRequests:
    """Open requests: the stages that each has to run, and its current one."""

    def __init__(self, on_device: Iterable[str]) -> None:
        self._on_device = frozenset(on_device)
        self._positions: dict[str, _Position] = {}
        self._following: dict[tuple[str, ...], tuple[Following, ...]] = {}

    def __len__(self) -> int:
        return len(self._positions)

    def open(self, request_id: str, todo: Sequence[str]) -> None:
        """Add a request at the first of these stages, which needs a device."""
        assert todo and todo[0] in self._on_device, (request_id, todo)
        stages = tuple(todo)
        if stages not in self._following:  # few, and asked for at every decision
            self._following[stages] = tuple(self._follows(stages[index:]) for index in range(1, len(stages) + 1))
        self._positions[request_id] = _Position(stages, self._following[stages])

    def close(self, request_id: str) -> None:
        del self._positions[request_id]

    def left(self, request_id: str) -> tuple[str, ...]:
        """The current stage and all after it."""
        position = self._positions[request_id]
        return position.todo[position.index :]

    def advance(self, request_id: str) -> str | None:
        """The stage after the one that ended, where the request is now; None after its last."""
        position = self._positions[request_id]
        position.index += 1
        return position.todo[position.index] if position.index < len(position.todo) else None

    def device_stage(self, request_id: str) -> str:
        """The current stage, or the device stage before it if it is a host stage."""
        position = self._positions[request_id]
        return next(stage for stage in reversed(position.todo[: position.index + 1]) if stage in self._on_device)

    def go_back(self, request_id: str) -> str:
        """Move the request back to the device stage before its host stage, whose output is lost; return that stage."""
        stage = self.device_stage(request_id)
        position = self._positions[request_id]
        position.index = position.todo.index(stage)
        return stage

    def device_stages_left(self, request_id: str) -> list[str]:
        """The device stages among the current stage and those after it."""
        return [stage for stage in self.left(request_id) if stage in self._on_device]

    def following(self, request_id: str) -> Following:
        position = self._positions[request_id]
        return position.following[position.index]

    def _follows(self, rest: tuple[str, ...]) -> Following:
        needs_host = bool(rest) and rest[0] not in self._on_device
        return needs_host, next((stage for stage in rest if stage in self._on_device), None)


class HostSlots:
    """A slot is taken from the start of the device stage that a host stage follows to the end of the host stages: its
    frames are in the host's memory."""

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}
        self._taken: dict[str, set[str]] = {}

    def add(self, worker: Worker) -> None:
        self._slots[worker.worker_id] = worker.host_slots
        self._taken[worker.worker_id] = set()

    def remove(self, worker_id: str) -> None:
        assert not self._taken[worker_id], worker_id
        del self._slots[worker_id], self._taken[worker_id]

    def num_free(self, worker_id: str) -> int:
        return self._slots[worker_id] - len(self._taken[worker_id])

    def is_in_use(self, worker_id: str) -> bool:
        return bool(self._taken[worker_id])

    def take(self, worker_id: str, request_ids: tuple[str, ...]) -> None:
        self._taken[worker_id].update(request_ids)

    def free(self, worker_id: str, request_id: str) -> None:
        self._taken[worker_id].discard(request_id)
