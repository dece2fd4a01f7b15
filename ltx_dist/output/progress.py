"""What a person sees while a batch runs: a live view on a terminal, one plain line a clip anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ltx_dist.types import RenderResult, Stage, WorkerState

SHORT_NAMES = {Stage.ENCODE_TEXT: "encode", Stage.DENOISE: "denoise", Stage.DECODE: "decode"}
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
        name = _shortened(_clean(result.request.request_id), longest_name).ljust(min(NAME_WIDTH, longest_name))
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
        parts = [f"{self.done} done" + f" ({self.already_done} of them before)" * (self.already_done > 0)]
        parts += [f"{self.failed} failed"] * (self.failed > 0)
        parts += [f"{self.total - self.ended} remaining"] * (self.ended < self.total)
        clips = "1 clip" if self.total == 1 else f"{self.total} clips"
        return f"{clips}: {', '.join(parts)}, in {_duration(self.elapsed())}"


class PlainProgress:
    """One line a finished clip, and a summary: for files, pipes and logs. Lines are never cut or wrapped."""

    def __init__(self, tally: Tally, console: Console) -> None:
        self._tally, self._console = tally, console

    def worker_states(self, states: Sequence[WorkerState]) -> None:
        """Nothing: a log has no use for the moment."""

    def finished(self, result: RenderResult) -> None:
        self._print(self._tally.add(result))

    def close(self) -> None:
        self._print(self._tally.summary())

    def _print(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class LiveProgress:
    """A bar of the batch and a row a worker, drawn again a few times a second; finished clips scroll by above."""

    def __init__(self, tally: Tally, console: Console) -> None:
        self._tally, self._console = tally, console
        self._states: Sequence[WorkerState] = ()
        self._live = Live(get_renderable=self.view, console=console, refresh_per_second=4, transient=True)
        self._live.start()

    def worker_states(self, states: Sequence[WorkerState]) -> None:
        """Show these from the next redraw on; cheap enough for every denoising step."""
        self._states = tuple(states)

    def finished(self, result: RenderResult) -> None:
        # A long name must not push the outcome off the line: 60 cells hold all the rest of it.
        line = self._tally.add(result, longest_name=max(16, self._console.width - 60))
        style = "" if result.status == "done" else "red"
        self._console.print(Text(line, style), no_wrap=True, overflow="ellipsis")

    def close(self) -> None:
        self._live.stop()
        self._console.print(Text(self._tally.summary(), "bold"))

    def view(self) -> RenderableType:
        # The batch first: a screen with fewer lines than workers cuts at the bottom.
        return Group(_batch_row(self._tally), _worker_table(self._states))

    def __enter__(self) -> LiveProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def make_progress(
    total: int, already_done: int, console: Console, clock: Clock = time.monotonic
) -> LiveProgress | PlainProgress:
    """The view that suits `console`. `already_done` of the `total` clips were there before this run."""
    tally = Tally(total, already_done, clock)
    live = console.is_terminal and not console.is_dumb_terminal
    return LiveProgress(tally, console) if live else PlainProgress(tally, console)


def _batch_row(tally: Tally) -> Table:
    counts = f"{tally.ended}/{tally.total}" + f"  {tally.failed} failed" * (tally.failed > 0)
    eta = tally.eta()
    left = f"{_duration(eta)} left" if eta is not None and tally.ended < tally.total else ""
    row = Table.grid(padding=(0, 1), expand=True)
    row.add_column(no_wrap=True)
    row.add_column(ratio=1)
    row.add_column(no_wrap=True, justify="right", overflow="ellipsis")
    row.add_row(Text(counts, "bold"), ProgressBar(tally.total, tally.ended), Text(left, "dim"))
    return row


def _worker_table(states: Sequence[WorkerState]) -> Table:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=16)
    table.add_column(no_wrap=True, width=7)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=3)
    table.add_column(no_wrap=True, ratio=2)
    table.add_column(no_wrap=True, justify="right")
    for state in states:
        table.add_row(*_worker_cells(state))
    return table


def _worker_cells(state: WorkerState) -> tuple[RenderableType, ...]:
    worker = Text(_clean(state.worker_id), "cyan")
    if state.stage is None:
        return worker, Text("waits", "dim"), "", "", ""
    clip = Text(_clean(state.request_id or ""))
    stage = Text(SHORT_NAMES[state.stage])
    if not state.num_steps:
        return worker, stage, clip, "", ""
    steps = Text(f"{state.step}/{state.num_steps}", "dim")
    return worker, stage, clip, ProgressBar(state.num_steps, state.step), steps


def _seconds_by_stage(result: RenderResult) -> str:
    """`2.4 s  encode 0.02 denoise 1.9 decode 0.4`: work and loading, without the time spent waiting for a worker."""
    seconds = {c.assignment.stage: c.report.seconds for c in result.completions}
    total = sum(c.report.seconds + c.report.load_seconds for c in result.completions)
    stages = " ".join(f"{SHORT_NAMES[stage]} {_number(value)}" for stage, value in seconds.items())
    return f"{_number(total)} s  {stages}"


def _number(seconds: float) -> str:
    digits = 2 if seconds < 0.095 else 1 if seconds < 9.95 else 0
    return f"{seconds:.{digits}f}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _first_line(error: str) -> str:
    return _clean((error.strip().splitlines() or [""])[0])


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _clean(text: str) -> str:
    """Without what moves a terminal's cursor, rings its bell or turns its writing direction."""
    return "".join(character if character.isprintable() else " " for character in text)
