"""Tracks clips whose last stages run on a worker's host, beside the next work of its device."""

from __future__ import annotations

from ltx_dist.pipeline.worker import Worker


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
