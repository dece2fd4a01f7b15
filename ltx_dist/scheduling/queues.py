"""Queues of requests that are ready for a stage, and of retries. Requests with equal keys can be taken together.

Nothing here knows a worker: who takes what is decided in `scheduler.py`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

BatchKey = Callable[[str, str], Hashable]
"""(stage, request) -> an opaque key: requests with equal keys may share a pass of the stage."""


def one_key(stage: str, request_id: str) -> Hashable:
    """A batch key for workers that take one request at a time."""
    return None


@dataclass(frozen=True, slots=True)
class Retry:
    """A request that resumes at `stage`, in a pass of its own: on a worker that is not in `avoid`, if another hosts the
    stage; `alone`, with nothing beside it, on a worker that has run nothing yet, if one is expected. These come before
    the queues.
    """

    request_id: str
    stage: str
    avoid: frozenset[str] = frozenset()
    alone: bool = False


class ReadyQueue:
    """Requests ready for one stage, lowest rank first. Every call takes a few steps on heaps, whatever its length.

    One heap per key, and one of their firsts; an entry that is no longer its key's first is dropped when met.
    """

    def __init__(self, key: Callable[[str], Hashable]) -> None:
        self._key = key
        self._key_of: dict[str, Hashable] = {}
        self._by_key: dict[Hashable, list[tuple[int, str]]] = {}
        self._firsts: list[tuple[int, str]] = []

    @property
    def length(self) -> int:
        return len(self._key_of)

    @property
    def first(self) -> str:
        """There must be one."""
        while True:
            entry = self._firsts[0]
            if entry[1] in self._key_of and self._by_key[self._key_of[entry[1]]][0] == entry:
                return entry[1]
            heapq.heappop(self._firsts)

    def push(self, rank: int, request_id: str) -> None:
        key = self._key_of[request_id] = self._key(request_id)
        entry = rank, request_id
        same_key = self._by_key.setdefault(key, [])
        heapq.heappush(same_key, entry)
        if same_key[0] == entry:
            heapq.heappush(self._firsts, entry)

    def entries(self) -> Iterator[tuple[int, str]]:
        """All of them with their ranks, in no order."""
        return chain.from_iterable(self._by_key.values())

    def rerank(self, ranks: Mapping[str, int]) -> None:
        for same_key in self._by_key.values():
            same_key[:] = [(ranks[request_id], request_id) for _, request_id in same_key]
            heapq.heapify(same_key)
        self._firsts = sorted(same_key[0] for same_key in self._by_key.values())

    def take(self, number: int) -> tuple[str, ...]:
        """The first and the next with its key, `number` at most; none with other keys, wherever they stand."""
        key = self._key_of[self.first]
        same_key = self._by_key[key]
        taken = tuple(heapq.heappop(same_key)[1] for _ in range(min(number, len(same_key))))
        for request_id in taken:
            del self._key_of[request_id]
        if same_key:
            heapq.heappush(self._firsts, same_key[0])
        else:
            del self._by_key[key]
        return taken


class Queues:
    """The queue in front of each device stage, in the order of requests, and what takes room in it.

    max_queued: how many may wait in front of a stage; requests in flight on their way to it count. retries: those that
    wait beside the queues, first in order first.
    """

    def __init__(self, stages: Iterable[str], max_queued: Mapping[str, int], key: BatchKey) -> None:
        self.max_queued = dict(max_queued)
        self.retries: list[Retry] = []
        self._ready = {stage: ReadyQueue(partial(key, stage)) for stage in stages}
        self._coming = dict.fromkeys(self._ready, 0)
        self._order: dict[str, int] = {}

    def add(self, request_id: str) -> None:
        """The request comes after all others. It waits nowhere yet."""
        assert request_id not in self._order, request_id
        self._order[request_id] = len(self._order)

    def put(self, request_id: str, stage: str) -> None:
        self._ready[stage].push(self._order[request_id], request_id)

    def put_beside(self, retry: Retry) -> None:
        self.retries.append(retry)
        self.retries.sort(key=lambda retry: self._order[retry.request_id])

    def take(self, stage: str, number: int) -> tuple[str, ...]:
        """The first and the next that may share its pass."""
        return self._ready[stage].take(number)

    def first(self, stage: str) -> str:
        return self._ready[stage].first

    def num_ready(self, stage: str) -> int:
        return self._ready[stage].length

    def num_waiting(self, stage: str) -> int:
        """Number of requests that wait for the stage, including retries."""
        return self._ready[stage].length + sum(retry.stage == stage for retry in self.retries)

    def expect(self, stage: str | None, number: int) -> None:
        """Reserve (or free, below 0) places in the stage's queue for requests in flight that will wait for it next."""
        if stage is not None:
            self._coming[stage] += number

    def room(self, stage: str) -> int:
        return self.max_queued[stage] - self._ready[stage].length - self._coming[stage]

    def ready(self) -> list[str]:
        """All requests in the queues, in order."""
        return [name for _, name in sorted(chain.from_iterable(queue.entries() for queue in self._ready.values()))]

    def reorder(self, request_ids: Sequence[str]) -> None:
        """These exchange their places among themselves."""
        places = sorted(self._order[request_id] for request_id in request_ids)
        self._order.update(zip(request_ids, places, strict=True))
        for queue in self._ready.values():
            queue.rerank(self._order)
