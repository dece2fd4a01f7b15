"""Keeps the clips of a run as they are published, for whoever iterates over the run, now or later."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from ltx_dist.api.clip import Clip, read_clip
from ltx_dist.pipeline.work import Completion, RenderResult
from ltx_dist.report.run_record import RunProgress
from ltx_dist.report.tally import Tally
from ltx_dist.store.files import to_json
from ltx_dist.store.output import Output


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts of a run's clips so far. eta_seconds: None until the first clip of this run has ended."""

    total: int
    done: int
    failed: int
    eta_seconds: float | None

    @property
    def remaining(self) -> int:
        return self.total - self.done - self.failed


class PublishedClips:
    """Follows a batch: keeps its clips and wakes the loops that wait for the next one.

    Of clips that existed before the run, only the name is kept, and the sidecar is read when the clip is asked for:
    there may be a hundred thousand.
    """

    def __init__(self, out: Output) -> None:
        self._found: list[Clip | str] = []
        self.run: RunProgress | None = None
        self._out = out
        self._tally: Tally | None = None
        self._has_ended = False
        self._changed = threading.Condition()

    @contextmanager
    def batch(self, run: RunProgress, warn: Callable[[str], None]) -> Iterator[None]:
        self.run = run
        self._tally = Tally(run.placement.recipe, run.submitted, run.skipped, time.monotonic)
        with self._changed:
            self._found += [name for name in run.names if name not in run.unfinished]
            self._changed.notify_all()
        yield

    def stage_ended(self, completion: Completion) -> None:
        assert self._tally is not None
        self._tally.stage_ended(completion)

    def clip_ended(self, result: RenderResult) -> None:
        assert self._tally is not None
        self._tally.add(result)
        clip = _failed(result) if result.status == "failed" else read_clip(self._out, result.request.request_id)
        with self._changed:
            self._found.append(clip)
            self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def wait_for(self, position: int) -> Clip | None:
        """The clip at this position, waiting for it if necessary; None if the run ends without it."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_ended or len(self._found) > position)
            return self._clip(position) if len(self._found) > position else None

    def all(self) -> list[Clip]:
        with self._changed:
            return [self._clip(position) for position in range(len(self._found))]

    def progress(self, total: int) -> Progress:
        if self.run is None or self._tally is None:
            return Progress(total, 0, 0, None)
        counts = self.run.counts
        return Progress(counts.submitted, counts.done, counts.failed, self._tally.eta())

    def _clip(self, position: int) -> Clip:
        found = self._found[position]
        if isinstance(found, str):
            found = self._found[position] = read_clip(self._out, found)
        return found


def _failed(result: RenderResult) -> Clip:
    """A failed clip, made from its result: if an earlier run's clip stays, the sidecar is about that one."""
    request = json.loads(to_json(asdict(result.request)))
    seconds = {completion.assignment.stage: completion.report.seconds for completion in result.completions}
    return Clip(result.request.request_id, request, "failed", error=result.error, seconds=seconds)
