"""How long a batch will still take: its plan, stretched to the speed that was measured."""

from __future__ import annotations

from collections.abc import Sequence


class Pace:
    """`planned_ends`: when the plan has each clip end, ascending, from the first work; in any unit.

    The plan knows what a count does not: that four workers end their first clips together, or that a decoder has a
    queue left when the last clip is denoised. How long its unit is in truth, the clips that ended tell.
    Without a plan every clip counts the same.
    """

    def __init__(self, num_clips: int, planned_ends: Sequence[float] = ()) -> None:
        assert not planned_ends or len(planned_ends) == num_clips, (num_clips, len(planned_ends))
        assert all(end > 0 for end in planned_ends[:1]), planned_ends[0]
        self._num_clips = num_clips
        self._planned_ends = planned_ends

    def eta(self, num_ended: int, last_ended: float, now: float) -> float | None:
        """Seconds to go `now`, with the `num_ended`-th clip ended at `last_ended`, both seconds since the first work.

        None before the first clip ended. It counts down from clip to clip and is never negative.
        """
        if num_ended == 0:
            return None
        left = last_ended * (self._planned(self._num_clips) / self._planned(num_ended) - 1)
        return max(0.0, left - (now - last_ended))

    def _planned(self, num_ended: int) -> float:
        return self._planned_ends[num_ended - 1] if self._planned_ends else float(num_ended)
