"""Writes the events of a batch for programs that follow it: `--json-events FILE` gets one JSON object per line.

Each has `event`, `time` (UTC), and:

    batch_started   submitted, already_done, layout, workers (worker_id, stages, device)
    stage_ended     as in run.json's `events`: request_id, stage, worker_id, started, finished, load_seconds, error,
                    shared_with
    clip_done       published: request_id, mp4 (its name in the output), mp4_sha256
    clip_failed     given up: request_id, error
    batch_ended     done, failed, remaining, exit_code; a run that was killed has none
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ltx_dist.pipeline.work import Completion, RenderResult
from ltx_dist.pipeline.worker import Placement
from ltx_dist.report.run_record import Counts, RunProgress, event_of, worker_of


def utc_now() -> datetime:
    return datetime.now(UTC)


class Events:
    """Calls `send` with each event of a batch, one call at a time."""

    def __init__(self, send: Callable[[dict[str, Any]], None], now: Callable[[], datetime] = utc_now) -> None:
        self._send, self._now = send, now

    @contextmanager
    def batch(self, run: RunProgress, warn: Callable[[str], None]) -> Iterator[None]:
        """Send the start of a batch, and its end however it ends."""
        self._batch_started(run.placement, run.counts)
        try:
            yield
        finally:
            self._batch_ended(run.counts, run.exit_code)

    def _batch_started(self, placement: Placement, counts: Counts) -> None:
        workers = [worker_of(worker) for worker in placement.workers]
        batch = {"submitted": counts.submitted, "already_done": counts.skipped, "layout": placement.layout}
        self._tell("batch_started", batch | {"workers": workers})

    def stage_ended(self, completion: Completion) -> None:
        self._tell("stage_ended", event_of(completion))

    def clip_ended(self, result: RenderResult) -> None:
        name = result.request.request_id
        if result.video is None:
            self._tell("clip_failed", {"request_id": name, "error": result.error})
        else:
            clip = {"request_id": name, "mp4": f"{name}.mp4", "mp4_sha256": result.video.mp4_sha256}
            self._tell("clip_done", clip)

    def _batch_ended(self, counts: Counts, exit_code: int | None) -> None:
        numbers = {"done": counts.done, "failed": counts.failed, "remaining": counts.remaining}
        self._tell("batch_ended", numbers | {"exit_code": exit_code})

    def _tell(self, event: str, content: dict[str, Any]) -> None:
        self._send({"event": event, "time": self._now().isoformat(timespec="milliseconds"), **content})


class EventLog:
    """Appends to `path`, each line at once, so that a rerun continues the same file. A pipe works, too.

    Raises ValueError if it cannot be opened. If it can no longer be written, because the disk is full or the pipe's
    reader is gone, the batch continues without the log, with a warning.
    """

    def __init__(self, path: Path, now: Callable[[], datetime] = utc_now) -> None:
        self._events = Events(self._write, now)
        self.stage_ended, self.clip_ended = self._events.stage_ended, self._events.clip_ended
        self._lock = threading.Lock()  # clips end in the thread that publishes
        self._warn: Callable[[str], None] = lambda line: None
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._file: int | None = None
        try:
            self._path = path.expanduser()
            self._file = os.open(self._path, flags, 0o666)  # unbuffered: nothing is left to fail at the end
        except RuntimeError:
            raise ValueError(f"--json-events: {path}: no such user; write the full path") from None
        except OSError as error:
            raise ValueError(f"--json-events: cannot write {path}: {error.strerror}") from None

    @contextmanager
    def batch(self, run: RunProgress, warn: Callable[[str], None]) -> Iterator[None]:
        """Log the start of a batch, and its end however it ends. `warn` is called once if the log cannot be written."""

        def remember(line: str) -> None:
            run.warnings.append(line)
            warn(f"warning: {line}")

        self._warn = remember
        with self._events.batch(run, warn):
            yield

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self, event: dict[str, Any]) -> None:
        line = json.dumps(event, ensure_ascii=False)
        with self._lock:
            if self._file is None:
                return
            try:
                rest = memoryview((line + "\n").encode())
                while rest:
                    rest = rest[os.write(self._file, rest) :]
            except OSError as error:
                self.close()
                self._warn(f"--json-events: {self._path}: {error.strerror}; the batch continues without it")
