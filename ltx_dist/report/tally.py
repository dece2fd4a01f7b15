"""Words the progress of a batch: counts, pace, and the line for a finished clip."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ltx_dist.messages import clean, duration, first_line
from ltx_dist.pipeline.recipe import Recipe
from ltx_dist.pipeline.work import Completion, RenderResult
from ltx_dist.planning.pace import Pace

NAME_WIDTH = 28
"""Names are padded to this, or to the longest so far, so that the columns line up."""

Clock = Callable[[], float]


class Tally:
    """Counts and pace of a batch, and the texts of both views.

    planned_ends: when each clip of this run is planned to end, see `Pace`.
    """

    def __init__(
        self, recipe: Recipe, total: int, already_done: int, clock: Clock, planned_ends: Sequence[float] = ()
    ) -> None:
        self.recipe = recipe
        self.total, self.already_done = total, already_done
        self.done, self.failed = already_done, 0
        self._clock = clock
        self._pace = Pace(total - already_done, planned_ends)
        self._started = self._last_ended = clock()
        self._began: float | None = None
        self._name_width = NAME_WIDTH

    @property
    def has_begun(self) -> bool:
        """Whether a stage has ended in this run."""
        return self._began is not None or self.ended > self.already_done

    @property
    def ended(self) -> int:
        return self.done + self.failed

    def stage_ended(self, completion: Completion) -> None:
        """Note when work began, because loading models before it is not part of the pace."""
        if self._began is None:
            self._began = max(self._started, self._clock() - completion.report.seconds)

    def add(self, result: RenderResult, longest_name: int = 255) -> str:
        """Count a result, and return its line."""
        self._last_ended = self._clock()
        self.done += result.status == "done"
        self.failed += result.status == "failed"
        counter = f"[{self.ended:>{len(str(self.total))}}/{self.total}]"
        outcome = (
            _seconds_by_stage(result, self.recipe) if result.status == "done" else clean(first_line(result.error or ""))
        )
        name = _shortened(clean(result.request.request_id), longest_name)
        self._name_width = max(self._name_width, len(name))
        name = name.ljust(min(self._name_width, longest_name))
        return f"{counter} {name}  {result.status:<6}  {outcome}".rstrip()

    def elapsed(self) -> float:
        return self._clock() - self._started

    def eta(self) -> float | None:
        """Estimated seconds left; None until the first clip of this run has ended."""
        began = self._work_began()
        return self._pace.eta(self.ended - self.already_done, self._last_ended - began, self._clock() - began)

    def clips_an_hour(self) -> float | None:
        """Clips per hour of this run, including failed ones; None before the first ended."""
        seconds = self._last_ended - self._work_began()
        return 3600 * (self.ended - self.already_done) / seconds if seconds > 0 else None

    def _work_began(self) -> float:
        return self._started if self._began is None else self._began

    def pace(self) -> str:
        """`214 clips/h, 3 min 30 s left`, as far as known; until the first clip ends, the planned time."""
        rate, eta = self.clips_an_hour(), self.eta()
        if self._began is not None and eta is None and self._pace.planned_seconds is not None:
            return f"{duration(self._pace.planned_seconds)} planned"
        parts = [f"{rate_text(rate)} clips/h"] if rate is not None else []
        if eta is not None and self.ended < self.total:
            parts.append(f"{duration(eta)} left" if eta else "later than planned")
        return ", ".join(parts)

    def so_far(self, queued: Mapping[str, int]) -> str:
        """One line for a log, during the batch."""
        if not self.has_begun:
            return f"-- {duration(self.elapsed())}: loading models, or in the first stage"
        parts = [f"{self.ended} of {self.total} ended, {self.failed} failed", self.pace(), waiting(queued, self.recipe)]
        return f"-- {duration(self.elapsed())}: " + "; ".join(part for part in parts if part)

    def summary(self) -> str:
        parts = [f"{self.done} done"]
        if self.already_done:
            parts = [f"{self.done} done ({self.already_done} of them earlier)"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.ended < self.total:
            parts.append(f"{self.total - self.ended} remaining")
        clips = "1 clip" if self.total == 1 else f"{self.total} clips"
        return f"{clips}: {', '.join(parts)}, in {duration(self.elapsed())}"


def _seconds_by_stage(result: RenderResult, recipe: Recipe) -> str:
    """`2.4 s  encode 0.02 denoise 1.9 of 4 decode 0.4`: work and loading, without the time spent waiting for a worker.

    For a pass that several clips shared, all of its time and the number of clips.
    """
    last = {c.assignment.stage: c for c in result.completions}
    total = sum(c.report.seconds + c.report.load_seconds for c in result.completions)
    stages = " ".join(
        f"{recipe[stage].label.verb} {_number(c.report.seconds)}{_shared(c)}" for stage, c in last.items()
    )
    return f"{_number(total)} s  {stages}"


def _shared(completion: Completion) -> str:
    number = len(completion.assignment.request_ids)
    return f" of {number}" if number > 1 else ""


def waiting(queued: Mapping[str, int], recipe: Recipe) -> str:
    """`waiting: 13 encode, 2 denoise, 0 decode`: the queues in front of the stages."""
    return "waiting: " + ", ".join(f"{number} {recipe[stage].label.verb}" for stage, number in queued.items())


def rate_text(clips_an_hour: float) -> str:
    """Whole clips, or tenths where there are fewer than ten per hour."""
    return f"{clips_an_hour:.0f}" if clips_an_hour >= 9.95 else f"{clips_an_hour:.1f}"


def _number(seconds: float) -> str:
    digits = 2 if seconds < 0.095 else 1 if seconds < 9.95 else 0
    return f"{seconds:.{digits}f}"


def precise_duration(seconds: float) -> str:
    """Like `duration`, with decimals of a second where they matter."""
    return duration(seconds) if seconds >= 59.95 else f"{seconds:.{1 if seconds >= 9.995 else 2}f} s"


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
