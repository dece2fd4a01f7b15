"""Chooses the view: live in a terminal, plain lines anywhere else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console

from ltx_dist.pipeline.recipe import Recipe
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.report.live_view import AskQueues, AskWorkers, LiveView
from ltx_dist.report.plain_view import PlainView
from ltx_dist.report.tally import Tally


@contextmanager
def progress_of(
    recipe: Recipe,
    total: int,
    already_done: int,
    console: Console,
    worker_states: AskWorkers,
    queue_lengths: AskQueues,
    planned_ends: Sequence[float] = (),
) -> Iterator[LiveView | PlainView]:
    """A view while the batch runs. `already_done` of the `total` clips were finished before this run."""
    tally = Tally(recipe, total, already_done, time.monotonic, planned_ends)
    if console.is_terminal and not console.is_dumb_terminal:
        live = LiveView(tally, console, worker_states, queue_lengths)
        try:
            yield live
        finally:
            live.close()
        return
    plain = PlainView(tally, console, time.monotonic, queue_lengths)
    try:
        with ticking(plain.tick, 1.0):
            yield plain
    finally:
        plain.close()


def queues_of(requests: Iterable[RenderRequest], recipe: Recipe, queue_lengths: AskQueues) -> AskQueues:
    """`queue_lengths` without the stages that none of these requests runs."""
    run = {stage for request in requests for stage in recipe.of(request)}
    return lambda: {stage: number for stage, number in queue_lengths().items() if stage in run}


@contextmanager
def ticking(call: Callable[[], None], seconds: float) -> Iterator[None]:
    """Call `call` every `seconds` in a separate thread until the block ends, which waits for a running call."""
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(seconds):
            call()

    thread = threading.Thread(target=tick, name="ticker", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
