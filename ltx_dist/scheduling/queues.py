"""What waits: requests ready for a stage, of which those alike can be taken together; and retries beside them.

Nothing here knows a worker: who takes what is decided in `scheduler.py`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

from ltx_dist.pipeline.stages import STAGES, Stage

Alike = Callable[[Stage, str], Hashable]
"""Requests for which it says the same of a stage may share a pass of it. What it says means nothing here."""


def all_alike(stage: Stage, request_id: str) -> Hashable:
    """Where no worker takes more than one request at a time there is nothing to tell apart."""
    return None


@dataclass(frozen=True, slots=True)
class Retry:
    """A request that goes on at `stage`, in a pass of its own: on a worker that is not in `avoid`, if another hosts the
    stage; `alone`, with nothing beside it, on a worker that has run nothing yet, if one is expected. These come before
    the queues.
    """

    request_id: str
    stage: Stage
    avoid: frozenset[str] = frozenset()
    alone: bool = False


class ReadyQueue:
    """Requests ready for one stage, lowest rank first. Every call takes a few steps on heaps, whatever its length.

    A heap for each kind of request, and one of their firsts; what is no kind's first any more is dropped when met.
    """

    def __init__(self, key: Callable[[str], Hashable]) -> None:
        self._key = key
        self._by_key: dict[Hashable, list[tuple[int, str]]] = {}
        self._firsts: list[tuple[int, str]] = []
        self.length = 0

    @property
    def first(self) -> str:
        """There must be one."""
        while True:
            entry = self._firsts[0]
            if self._by_key.get(self._key(entry[1]), [None])[0] == entry:
                return entry[1]
            heapq.heappop(self._firsts)

    def push(self, rank: int, request_id: str) -> None:
        entry = rank, request_id
        alike = self._by_key.setdefault(self._key(request_id), [])
        heapq.heappush(alike, entry)
        self.length += 1
        if alike[0] == entry:
            heapq.heappush(self._firsts, entry)

    def entries(self) -> Iterator[tuple[int, str]]:
        """All of them, each with its rank, in no order."""
        return chain.from_iterable(self._by_key.values())

    def rank_anew(self, ranks: Mapping[str, int]) -> None:
        for alike in self._by_key.values():
            alike[:] = [(ranks[request_id], request_id) for _, request_id in alike]
            heapq.heapify(alike)
        self._firsts = sorted(alike[0] for alike in self._by_key.values())

    def take(self, number: int) -> tuple[str, ...]:
        """The first and the next of its kind, `number` at most; of other kinds none, wherever they stand."""
        key = self._key(self.first)
        alike = self._by_key[key]
        taken = tuple(heapq.heappop(alike)[1] for _ in range(min(number, len(alike))))
        self.length -= len(taken)
        if alike:
            heapq.heappush(self._firsts, alike[0])
        else:
            del self._by_key[key]
        return taken


class Queues:
    """The queue in front of each stage, in the order of requests, and what takes room in it.

    max_queued: how many may wait in front of a stage; requests in flight in the one before count. retries: those that
    wait beside the queues, first in order first.
    """

    def __init__(self, max_queued: Mapping[Stage, int], alike: Alike) -> None:
        self.max_queued = dict(max_queued)
        self.retries: list[Retry] = []
        self._ready = {stage: ReadyQueue(partial(alike, stage)) for stage in STAGES}
        self._running = dict.fromkeys(STAGES, 0)
        self._order: dict[str, int] = {}

    def add(self, request_id: str) -> None:
        """The request comes after all there are. It waits nowhere yet."""
        assert request_id not in self._order, request_id
        self._order[request_id] = len(self._order)

    def put(self, request_ids: Iterable[str], stage: Stage) -> None:
        for request_id in request_ids:
            self._ready[stage].push(self._order[request_id], request_id)

    def put_beside(self, retry: Retry) -> None:
        self.retries.append(retry)
        self.retries.sort(key=lambda retry: self._order[retry.request_id])

    def take(self, stage: Stage, number: int) -> tuple[str, ...]:
        """The first and the next that are like it."""
        return self._ready[stage].take(number)

    def first(self, stage: Stage) -> str:
        return self._ready[stage].first

    def num_ready(self, stage: Stage) -> int:
        return self._ready[stage].length

    def num_waiting(self, stage: Stage) -> int:
        """Those beside the queue, too."""
        return self._ready[stage].length + sum(retry.stage is stage for retry in self.retries)

    def begin(self, stage: Stage, number: int) -> None:
        """So many are in flight at the stage now: each has its place in the next queue."""
        self._running[stage] += number

    def end(self, stage: Stage, number: int) -> None:
        self._running[stage] -= number

    def room_after(self, stage: Stage, following: Stage) -> int:
        return self.max_queued[following] - self._ready[following].length - self._running[stage]

    def ready(self) -> dict[str, Stage]:
        """All in the queues and the stage of each, in order."""
        entries = sorted((order, name, stage) for stage in STAGES for order, name in self._ready[stage].entries())
        return {name: stage for _, name, stage in entries}

    def reorder(self, request_ids: Sequence[str]) -> None:
        """These exchange their places among themselves."""
        places = sorted(self._order[request_id] for request_id in request_ids)
        self._order.update(zip(request_ids, places, strict=True))
        for queue in self._ready.values():
            queue.rank_anew(self._order)
