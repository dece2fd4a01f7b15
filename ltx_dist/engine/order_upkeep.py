"""Looks for a better order of waiting requests while the devices work, a little at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ltx_dist.planning.simulator import OrderRevision, Reorder
from ltx_dist.scheduling.scheduler import Order, Scheduler

ORDER_SECONDS, ORDER_SHARE = 0.005, 0.1
"""Seconds per piece of the search, and the share of all time that the search may take: a worker that finishes meanwhile
waits for the piece to end."""


class OrderUpkeep:
    """Searches for a better order whenever the present one is out of date.

    reorder: yields better orders of the waiting requests; None leaves the order alone.
    """

    def __init__(self, scheduler: Scheduler, reorder: Reorder | None, clock: Callable[[], float]) -> None:
        self._scheduler, self._reorder, self._clock = scheduler, reorder, clock
        self._revision = OrderRevision()
        self._orders: Iterator[Order | None] | None = None
        self._next = 0.0

    def due(self, otherwise: float) -> float:
        """Seconds until the next piece of the search; `otherwise` if no search is under way."""
        return self._next - self._clock() if self._orders else otherwise

    def stop(self) -> None:
        self._orders = None

    def look(self) -> None:
        """Run one piece of the search, if it is due; a whole search can take seconds."""
        started = self._clock()
        if self._reorder is None or started < self._next:
            return
        if not any(map(self._scheduler.num_queued, self._scheduler.recipe.on_device)):
            self._orders = None
            return
        if self._revision.is_due(self._scheduler):
            self._orders = iter(self._reorder(self._scheduler))
        while self._orders and self._clock() < started + ORDER_SECONDS:
            try:
                if order := next(self._orders):
                    self._scheduler.reorder(*order)
            except StopIteration:
                self._orders = None
        self._next = self._clock() + (self._clock() - started) / ORDER_SHARE
