"""Calls a function periodically in a thread, beside a loop that may be busy for minutes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def ticking(call: Callable[[], None], seconds: float) -> Iterator[None]:
    """Call every `seconds`, in a thread of its own, until the block ends; no call runs on after that."""
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
