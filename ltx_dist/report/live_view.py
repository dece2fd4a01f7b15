"""The terminal view: the batch, its queues and one row per worker, redrawn a few times per second.

Finished clips scroll by above. Every line fits the terminal's current width.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.console import RenderResult as Rendered
from rich.control import Control
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ltx_dist.messages import clean
from ltx_dist.pipeline.recipe import Recipe
from ltx_dist.pipeline.work import Completion, RenderResult, WorkerState
from ltx_dist.report.tally import Tally

AskWorkers = Callable[[], Sequence[WorkerState]]
"""Returns the current state of each worker; must not block."""

AskQueues = Callable[[], Mapping[str, int]]
"""Returns how many clips wait for each stage; must not block."""

WIDE, NARROW = 110, 64
"""Terminal widths in cells: from WIDE on, the names of components fit; below NARROW, bars, components and memory do
not."""


KEPT_LINES = 200
"""Number of finished clips that are printed again when the terminal is resized: as many as the tallest screen shows."""


class LiveView:
    """The view. At each redraw, worker_states and queue_lengths are called in the drawing thread, because the batch
    loop may be busy rendering."""

    def __init__(self, tally: Tally, console: Console, worker_states: AskWorkers, queue_lengths: AskQueues) -> None:
        self._tally, self._console = tally, console
        self._worker_states, self._queue_lengths = worker_states, queue_lengths
        self._lines: deque[Text] = deque(maxlen=KEPT_LINES)
        self._live = _ResizedLive(
            self._lines, get_renderable=self.view, console=console, refresh_per_second=4, transient=True
        )
        self._live.start()

    def stage_ended(self, completion: Completion) -> None:
        self._tally.stage_ended(completion)

    def clip_ended(self, result: RenderResult) -> None:
        # A long name must not push the outcome off the line; everything but the name fits in 60 cells.
        line = self._tally.add(result, longest_name=max(16, self._console.width - 60))
        style = "" if result.status == "done" else "red"
        self._lines.append(Text(line, style, no_wrap=True, overflow="ellipsis"))
        self._console.print(Group(self._lines[-1]))  # in a Group, because print would wrap a bare Text

    def close(self) -> None:
        self._live.stop()
        self._console.print(Text(self._tally.summary(), "bold"))

    def view(self) -> RenderableType:
        # The batch comes first, because a screen with fewer lines than workers cuts off the bottom.
        recipe = self._tally.recipe
        queues = _queue_row(self._queue_lengths(), recipe)
        return Group(_batch_row(self._tally), queues, _Workers(tuple(self._worker_states()), recipe))


class _ResizedLive(Live):
    """A Live that clears the screen when the terminal's width changes, because parts of the old drawing would stay.

    Terminals wrap lines that no longer fit in different ways, so the old lines cannot be counted and erased.
    """

    def __init__(self, lines: Collection[Text], console: Console, **options: Any) -> None:
        super().__init__(console=console, **options)
        self._lines, self._width = lines, console.width

    def refresh(self) -> None:
        if self.console.width != self._width:
            self._width = self.console.width
            self.console.control(Control.clear(), Control.home())
            shown = list(self._lines)[-self.console.height :]
            if shown:
                self.console.print(Group(*shown))
        super().refresh()


def _batch_row(tally: Tally) -> Table:
    counts = f"{tally.ended}/{tally.total}" + f"  {tally.failed} failed" * (tally.failed > 0)
    row = Table.grid(padding=(0, 1), expand=True)
    row.add_column(no_wrap=True)
    row.add_column(ratio=1, min_width=4)
    row.add_column(no_wrap=True, justify="right", overflow="ellipsis")
    row.add_row(Text(counts, "bold"), ProgressBar(tally.total, tally.ended), Text(tally.pace(), "dim"))
    return row


def _queue_row(queued: Mapping[str, int], recipe: Recipe) -> Text:
    """`waiting  13 > encode  2 > denoise  0 > decode`: each number before the stage that will take from it."""
    row = Text("waiting", "dim", no_wrap=True, overflow="ellipsis")
    for stage, number in queued.items():
        row.append(f"  {number}", "bold").append(f" > {recipe[stage].label.verb}", "dim")
    return row


class _Workers:
    """One row per worker; which columns there are depends on the width."""

    def __init__(self, states: Sequence[WorkerState], recipe: Recipe) -> None:
        self._states, self._recipe = states, recipe

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Rendered:
        yield _worker_table(self._states, self._recipe, options.max_width)


def _worker_table(states: Sequence[WorkerState], recipe: Recipe, width: int) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, expand=True, header_style="dim")
    table.add_column("worker", no_wrap=True, overflow="ellipsis", max_width=16)
    table.add_column("stage", no_wrap=True, width=7)
    table.add_column("clip", no_wrap=True, overflow="ellipsis", ratio=1)
    if width >= NARROW:
        table.add_column("", no_wrap=True, width=20 if width >= WIDE else 10)
    table.add_column("step", no_wrap=True, justify="right", min_width=5)
    if width >= NARROW:
        table.add_column("on device" if width >= WIDE else "has", no_wrap=True, width=28 if width >= WIDE else 5)
        table.add_column("memory", no_wrap=True, justify="right", min_width=7)
    for state in states:
        table.add_row(*_worker_cells(state, recipe, width))
    return table


def _worker_cells(state: WorkerState, recipe: Recipe, width: int) -> list[RenderableType]:
    known = state.components or state.memory_bytes is not None  # neither is set until the models are loaded
    idle = Text("waits" if known else "starts", "dim")
    stage = idle if state.stage is None else Text(recipe[state.stage].label.verb)
    cells: list[RenderableType] = [Text(clean(state.worker_id), "cyan"), stage, Text(clean(_clips(state)))]
    if width >= NARROW:
        cells.append(ProgressBar(state.num_steps, state.step) if state.num_steps else "")
    cells.append(Text(f"{state.step}/{state.num_steps}" if state.num_steps else "", "dim"))
    if width >= NARROW:
        memory = "" if state.memory_bytes is None else f"{state.memory_bytes / 1e9:.1f} GB"
        cells += [Text(_components(state.components, recipe, width), "dim"), Text(memory, "dim")]
    return cells


def _clips(state: WorkerState) -> str:
    """`a`, or `+3 a` where others share the pass: a long name is cut at its end."""
    first, *others = state.request_ids or ("",)
    return f"+{len(others)} {first}" if others else first


def _components(components: Sequence[str], recipe: Recipe, width: int) -> str:
    """The components by name if they fit; otherwise the timeline's letter of each stage that could run: `E . V`."""
    if width >= WIDE:
        return " ".join(components)
    stages = [recipe[name] for name in recipe.on_device]
    return " ".join(s.label.letter if set(s.components) <= set(components) else "." for s in stages)
