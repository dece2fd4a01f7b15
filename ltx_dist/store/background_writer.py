"""Writes stage outputs to disk in a separate thread, so that the batch loop never waits for the disk."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Semaphore

from ltx_dist.pipeline.payloads import StageOutput
from ltx_dist.store.output_errors import output_errors

MAX_WAITING = 16
"""Maximum number of outputs that wait in memory for a slow disk; a stopping run has to write them all."""


class BackgroundWriter:
    """A thread that runs its tasks in order until one fails.

    The failed task's error is raised by the next call and by `close`; an error of the disk as OutputError.
    """

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._room = Semaphore(MAX_WAITING)
        self._error: Exception | None = None

    def keep(self, fetch: Callable[[], StageOutput], write: Callable[[StageOutput], None]) -> None:
        """Queue an output to be fetched and written. If MAX_WAITING already wait for the disk, it is not kept."""
        if not self._room.acquire(blocking=False):
            return

        def fetch_and_write() -> None:
            try:
                output = fetch()
            except Exception:
                return  # lost with its node, which the batch loop notices as well
            finally:
                self._room.release()
            write(output)

        self.do(fetch_and_write)

    def do(self, action: Callable[[], None]) -> None:
        if self._error is not None:
            raise self._error
        self._thread.submit(self._run, action)

    def close(self) -> None:
        """Wait for all tasks. Raises the error of a failed one."""
        self._thread.shutdown(wait=True)
        if self._error is not None:
            raise self._error

    def _run(self, action: Callable[[], None]) -> None:
        if self._error is None:
            try:
                with output_errors():
                    action()
            except Exception as error:
                self._error = error
