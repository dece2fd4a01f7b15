"""Predicts the remaining time of a batch: its plan, scaled to the measured speed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ltx_dist.pipeline.timeline import first_start
from ltx_dist.pipeline.work import Completion


class Pace:
    """Predicts the seconds that a batch still takes.

    planned_ends: seconds from the first work to the planned end of each clip, or of an even sample of clips, ascending.

    The plan knows what a count does not: that four workers end their first clips together, or that a decoder has a
    queue left when the last clip is denoised. The clips that ended tell how long its seconds really are. Without a plan
    every clip counts the same.
    """

    def __init__(self, num_clips: int, planned_ends: Sequence[float] = ()) -> None:
        assert not planned_ends or planned_ends[0] > 0, planned_ends[0]
        self._num_clips = num_clips
        self._planned_ends = planned_ends

    @property
    def planned_seconds(self) -> float | None:
        """Planned seconds of the whole batch, from its first work; None without a plan."""
        return self._planned_ends[-1] if self._planned_ends else None

    def eta(self, num_ended: int, last_ended: float, now: float) -> float | None:
        """Seconds left at `now`, after the `num_ended`-th clip ended at `last_ended`.

        Both are in seconds since the first work. None before the first clip has ended. It counts down from clip to clip
        and is never negative.
        """
        if num_ended == 0:
            return None
        left = last_ended * (self._planned(self._num_clips) / self._planned(num_ended) - 1)
        return max(0.0, left - (now - last_ended))

    def _planned(self, num_ended: int) -> float:
        """Planned seconds until this many clips have ended, interpolated linearly."""
        ends = self._planned_ends or [float(self._num_clips)]
        position = num_ended * len(ends) / self._num_clips
        before = int(position)
        start = ends[before - 1] if before else 0.0
        if before == len(ends):
            return start
        return start + (position - before) * (ends[before] - start)


def planned_ends(completions: Iterable[Completion], scale: float = 1.0) -> list[float]:
    """Seconds from a plan's first work to the end of each clip, ascending. scale: clips that each of them stands
    for."""
    completions = list(completions)
    origin = first_start(completions)
    ended = sorted(completions, key=lambda completion: completion.finished)
    last = {name: completion.finished for completion in ended for name in completion.assignment.request_ids}
    return sorted(scale * (finished - origin) for finished in last.values())
