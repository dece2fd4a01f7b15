"""Publishes in a separate thread, so that the batch loop, and with it a local GPU, never waits for the disk."""

from __future__ import annotations

import queue
from collections.abc import Callable
from threading import Thread
from types import TracebackType

from ltx_dist.pipeline.work import RenderResult
from ltx_dist.store.output_errors import OutputError

MAX_WAITING = 4
"""Maximum number of finished clips that wait in memory for a slow disk; a stopping run has to write them all."""

PATIENCE = 600.0
"""Seconds of writing one clip after which the output counts as lost, because a network file system may hang forever."""


class PublishingThread:
    """Passes results to `publish`, one after another, in order.

    After the first error nothing more is published; the next `put`, or the end of the `with`, raises it. However the
    `with` block ends, everything put before is published first.
    """

    def __init__(self, publish: Callable[[RenderResult], None], patience: float = PATIENCE) -> None:
        self._publish, self._patience = publish, patience
        self._waiting: queue.Queue[RenderResult | None] = queue.Queue(MAX_WAITING)
        self._error: BaseException | None = None
        # A daemon: a file system that hangs forever must not keep the process from ending.
        self._thread = Thread(target=self._run, name="publish", daemon=True)
        self._now: str | None = None

    def put(self, result: RenderResult) -> None:
        """Queue `result` for publishing; waits while MAX_WAITING are ahead of it. Raises OutputError."""
        self._put(result)

    def __enter__(self) -> PublishingThread:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._error is None:
            self._put(None)
        self._thread.join(self._patience)
        if self._thread.is_alive():
            raise self._stuck()
        if self._error is not None and self._error is not error:
            raise self._error

    def _put(self, result: RenderResult | None) -> None:
        if self._error is not None:
            raise self._error
        try:
            self._waiting.put(result, timeout=self._patience)
        except queue.Full:
            raise self._stuck() from None

    def _run(self) -> None:
        while self._error is None and (result := self._waiting.get()) is not None:
            self._now = result.request.request_id
            try:
                self._publish(result)
            except BaseException as error:
                self._error = error
                while not self._waiting.empty():  # release callers that wait; they get the error at the next call
                    self._waiting.get_nowait()

    def _stuck(self) -> OutputError:
        return OutputError(f"{self._now}: no progress in writing this clip for {self._patience:.0f} s")
