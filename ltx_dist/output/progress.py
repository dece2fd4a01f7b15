"""What a person sees while a batch runs: a live view on a terminal, one plain line a clip anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ltx_dist.output.tally import SHORT_NAMES, Clock, Tally, clean, duration
from ltx_dist.types import RenderResult, WorkerState

AskWorkers = Callable[[], Sequence[WorkerState]]
"""What each worker does at the moment; must not block."""


class PlainProgress:
    """One line a finished clip, and a summary: for files, pipes and logs. Lines are never cut or wrapped."""

    def __init__(self, tally: Tally, console: Console) -> None:
        self._tally, self._console = tally, console

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
    """A bar of the batch and a row a worker, drawn again a few times a second; finished clips scroll by above.

    `worker_states` is asked at each redraw, in the thread that draws: the batch's own loop may be busy rendering.
    """

    def __init__(self, tally: Tally, console: Console, worker_states: AskWorkers) -> None:
        self._tally, self._console, self._worker_states = tally, console, worker_states
        self._live = Live(get_renderable=self.view, console=console, refresh_per_second=4, transient=True)
        self._live.start()

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
        return Group(_batch_row(self._tally), _worker_table(self._worker_states()))

    def __enter__(self) -> LiveProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def make_progress(
    total: int, already_done: int, console: Console, worker_states: AskWorkers, clock: Clock = time.monotonic
) -> LiveProgress | PlainProgress:
    """The view that suits `console`. `already_done` of the `total` clips were there before this run."""
    tally = Tally(total, already_done, clock)
    live = console.is_terminal and not console.is_dumb_terminal
    return LiveProgress(tally, console, worker_states) if live else PlainProgress(tally, console)


def _batch_row(tally: Tally) -> Table:
    counts = f"{tally.ended}/{tally.total}" + f"  {tally.failed} failed" * (tally.failed > 0)
    eta = tally.eta()
    left = f"{duration(eta)} left" if eta is not None and tally.ended < tally.total else ""
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
    worker = Text(clean(state.worker_id), "cyan")
    if state.stage is None:
        return worker, Text("waits", "dim"), "", "", ""
    clip = Text(clean(state.request_id or ""))
    stage = Text(SHORT_NAMES[state.stage])
    if not state.num_steps:
        return worker, stage, clip, "", ""
    steps = Text(f"{state.step}/{state.num_steps}", "dim")
    return worker, stage, clip, ProgressBar(state.num_steps, state.step), steps
