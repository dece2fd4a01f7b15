"""How far a batch is, in words: counts, pace, and the one line that tells of a finished clip."""

from __future__ import annotations

from collections.abc import Callable

from ltx_dist.types import RenderResult, Stage

SHORT_NAMES = {Stage.ENCODE_TEXT: "encode", Stage.DENOISE: "denoise", Stage.DECODE: "decode", Stage.ENCODE_VIDEO: "mp4"}
NAME_WIDTH = 28
"""Names are padded to this so that the columns line up."""

Clock = Callable[[], float]


class Tally:
    """Counts and pace of a batch; the words of both views."""

    def __init__(self, total: int, already_done: int, clock: Clock) -> None:
        self.total, self.already_done = total, already_done
        self.done, self.failed = already_done, 0
        self._clock = clock
        self._started = self._last_ended = clock()

    @property
    def ended(self) -> int:
        return self.done + self.failed

    def add(self, result: RenderResult, longest_name: int = 255) -> str:
        """Count a result; the line that tells of it."""
        self._last_ended = self._clock()
        self.done += result.status == "done"
        self.failed += result.status == "failed"
        counter = f"[{self.ended:>{len(str(self.total))}}/{self.total}]"
        outcome = _seconds_by_stage(result) if result.status == "done" else _first_line(result.error or "")
        name = _shortened(clean(result.request.request_id), longest_name).ljust(min(NAME_WIDTH, longest_name))
        return f"{counter} {name}  {result.status:<6}  {outcome}".rstrip()

    def elapsed(self) -> float:
        return self._clock() - self._started

    def eta(self) -> float | None:
        """Seconds still to go at the pace so far; None before the first clip of this run ended."""
        ended_here = self.ended - self.already_done
        if not ended_here:
            return None
        seconds_a_clip = (self._last_ended - self._started) / ended_here
        since_last = self._clock() - self._last_ended
        return max(0.0, seconds_a_clip * (self.total - self.ended) - since_last)

    def summary(self) -> str:
        parts = [f"{self.done} done"]
        if self.already_done:
            parts = [f"{self.done} done ({self.already_done} of them before)"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.ended < self.total:
            parts.append(f"{self.total - self.ended} remaining")
        clips = "1 clip" if self.total == 1 else f"{self.total} clips"
        return f"{clips}: {', '.join(parts)}, in {duration(self.elapsed())}"


def _seconds_by_stage(result: RenderResult) -> str:
    """`2.4 s  encode 0.02 denoise 1.9 decode 0.4`: work and loading, without the time spent waiting for a worker."""
    seconds = {c.assignment.stage: c.report.seconds for c in result.completions}
    total = sum(c.report.seconds + c.report.load_seconds for c in result.completions)
    stages = " ".join(f"{SHORT_NAMES[stage]} {_number(value)}" for stage, value in seconds.items())
    return f"{_number(total)} s  {stages}"


def _number(seconds: float) -> str:
    digits = 2 if seconds < 0.095 else 1 if seconds < 9.95 else 0
    return f"{seconds:.{digits}f}"


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _first_line(error: str) -> str:
    return clean((error.strip().splitlines() or [""])[0])


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def clean(text: str) -> str:
    """Without what moves a terminal's cursor, rings its bell or turns its writing direction."""
    return "".join(character if character.isprintable() else " " for character in text)
