"""Decides which worker may take a request whose last pass failed."""

from __future__ import annotations

from collections.abc import Set

from ltx_dist.pipeline.worker import Worker
from ltx_dist.scheduling.fleet import Fleet
from ltx_dist.scheduling.host_slots import HostSlots
from ltx_dist.scheduling.in_flight import OpenRequests
from ltx_dist.scheduling.queues import Retry


class Retries:
    """Tracks workers that have run nothing yet, and those that are reserved for a request that must run alone."""

    def __init__(self, fleet: Fleet, slots: HostSlots, requests: OpenRequests) -> None:
        self._fleet, self._slots, self._requests = fleet, slots, requests
        self._fresh: set[str] = set()
        self._reserved: dict[str, str] = {}

    def add(self, worker_id: str) -> None:
        self._fresh.add(worker_id)

    def remove(self, worker_id: str) -> None:
        self._fresh.discard(worker_id)
        self._reserved.pop(worker_id, None)

    def begin(self, worker_id: str) -> None:
        """Record that the worker has run something."""
        self._fresh.discard(worker_id)

    def reserve(self, worker_id: str, request_id: str) -> None:
        self._reserved[worker_id] = request_id

    def end(self, worker_id: str, request_id: str) -> None:
        """The request has left the worker, host stages and all."""
        if self._reserved.get(worker_id) == request_id:
            del self._reserved[worker_id]

    def is_reserved(self, worker_id: str) -> bool:
        return worker_id in self._reserved

    def worker_for(self, retry: Retry, expected: Set[str]) -> Worker | None:
        """The first idle one that may take it; of those for one that is to be alone, a fresh one."""
        fits = [worker for worker in self._fleet.idle_workers() if self._may_take(worker, retry, expected)]
        if retry.alone:  # the fresh one may have come when others are idle, too
            fits.sort(key=lambda worker: worker.worker_id not in self._fresh)
        return next(iter(fits), None)

    def _may_take(self, worker: Worker, retry: Retry, expected: Set[str]) -> bool:
        name, stage = worker.worker_id, retry.stage
        needs_slot, _ = self._requests.following(retry.request_id)
        if stage not in worker.stages or (needs_slot and not self._slots.num_free(name)):
            return False
        if retry.alone and (self._slots.is_in_use(name) or (expected and name not in self._fresh)):
            return False
        # One on which it did not fail may be starting: worth waiting for.
        return name not in retry.avoid or (self._fleet.hosts(stage) | expected) <= retry.avoid
