"""Both views, drawn on rich consoles of several widths; the live one is compared with golden text."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from builders import RECIPE, STAGES, D, E, V
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from ltx_dist.models.ltx_video import recipes
from ltx_dist.pipeline.conditions import Condition
from ltx_dist.pipeline.payloads import EncodedVideo
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.work import Assignment, Completion, RenderResult, StageReport, WorkerState
from ltx_dist.report.live_view import LiveView
from ltx_dist.report.plain_view import PlainView
from ltx_dist.report.progress import progress_of, queues_of
from ltx_dist.report.tally import Tally

GOLDEN = Path(__file__).parent / "golden"

COMPONENTS = ("text_encoder", "transformer", "vae")
STATES = [
    WorkerState("cuda:0", D, ("019-a-[bold]red[/bold]-circle",), 5, 8, COMPONENTS, 15_912_000_000),
    WorkerState("a-worker-with-a-very-long-name", E, ("x" * 200,), components=("text_encoder",)),
    WorkerState("cuda:2", V, ("018-" + 22 * "圆",), components=("vae",), memory_bytes=640_000_000),
    WorkerState("cuda:3", components=("transformer",), memory_bytes=0),
    WorkerState("cuda:4"),
]
QUEUES = {E: 13, D: 2, V: 0}


class Clock:
    """A clock whose time is a number that tests set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def result(request_id: str, error: str | None = None) -> RenderResult:
    request = RenderRequest(request_id, "a prompt", "", 64, 96, 17, 24.0, 8, 3.0, 0.0, 7, 0.0, None, 64)
    completions = tuple(
        Completion(Assignment((request_id,), stage, "gpu-0"), 0.0, 1.0, StageReport(seconds, load_seconds=0.02))
        for stage, seconds in zip(STAGES, (0.02, 1.9, 0.4), strict=True)
    )
    if error is not None:
        return RenderResult(request, "failed", completions[:1], error=error)
    return RenderResult(request, "done", completions, video=EncodedVideo(b"", 17, 64, 96, "", ""))


def terminal(width: int) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=24, record=True, legacy_windows=False)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def without_styles(text: str) -> str:
    return Text.from_ansi(text).plain


@contextmanager
def live(console: Console, tally: Tally) -> Iterator[LiveView]:
    view = LiveView(tally, console, lambda: STATES, lambda: QUEUES)
    try:
        yield view
    finally:
        view.close()


def plain(console: Console, tally: Tally, clock: Clock) -> PlainView:
    return PlainView(tally, console, clock, lambda: QUEUES)


def test_the_console_decides() -> None:
    def chosen(console: Console) -> object:
        with progress_of(RECIPE, 1, 0, console, lambda: STATES, lambda: QUEUES) as progress:
            return progress

    assert isinstance(chosen(Console(file=io.StringIO())), PlainView)
    assert isinstance(chosen(terminal(80)), LiveView)
    assert isinstance(chosen(Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})), PlainView)


@pytest.mark.parametrize("width", [40, 80, 160])
def test_plain_is_one_line_a_clip_at_any_width(width: int) -> None:
    console, clock = Console(file=io.StringIO(), width=width), Clock()
    view = plain(console, Tally(RECIPE, 24, 1, clock), clock)
    view.clip_ended(result("003-a-red-circle"))
    view.clip_ended(result("004-a-blue-square", "denoise: RuntimeError: out of memory [/oops]\nmore\nlines"))
    clock.now += 75.4
    view.close()
    assert printed(console).splitlines() == [
        "[ 2/24] 003-a-red-circle              done    2.4 s  encode 0.02 denoise 1.9 decode 0.4",
        "[ 3/24] 004-a-blue-square             failed  denoise: RuntimeError: out of memory [/oops]",
        "24 clips: 2 done (1 of them earlier), 1 failed, 21 remaining, in 1 min 15 s",
    ]


def test_plain_tells_of_the_batch_every_half_minute() -> None:
    console, clock = Console(file=io.StringIO(), width=80), Clock()
    view = plain(console, Tally(RECIPE, 24, 0, clock), clock)
    for second in range(95):
        clock.now = 100.0 + second
        if second == 40:
            view.clip_ended(result("001"))
        view.tick()
    assert [line for line in printed(console).splitlines() if line.startswith("--")] == [
        "-- 5 s: loading models, or in the first stage",
        "-- 30 s: loading models, or in the first stage",
        "-- 1 min 00 s: 1 of 24 ended, 0 failed; 90 clips/h, 15 min 00 s left; waiting: 13 encode, 2 denoise, 0 decode",
        "-- 1 min 30 s: 1 of 24 ended, 0 failed; 90 clips/h, 14 min 30 s left; waiting: 13 encode, 2 denoise, 0 decode",
    ]


def test_a_batch_without_trouble_ends_in_few_words() -> None:
    console = Console(file=io.StringIO(), width=80)
    with progress_of(RECIPE, 1, 0, console, lambda: STATES, lambda: QUEUES) as progress:
        progress.clip_ended(result("001-a"))
    assert re.fullmatch(r"1 clip: 1 done, in \d+ s", printed(console).splitlines()[-1])


@pytest.mark.fault(10)
def test_names_and_errors_cannot_steer_the_terminal() -> None:
    console, clock = Console(file=io.StringIO(), width=80), Clock()
    view = plain(console, Tally(RECIPE, 2, 0, clock), clock)
    view.clip_ended(result("a\x1b[2J\rb\u202e[red]c[/red]"))
    view.clip_ended(result("d", "\x07\x1b]0;title\x07boom\r\nmore"))
    lines = printed(console).splitlines()
    assert len(lines) == 2 and all(line.isprintable() for line in lines)
    assert "a [2J b [red]c[/red]" in lines[0] and "]0;title boom" in lines[1]


@pytest.mark.parametrize("width", [30, 40, 63, 64, 80, 110, 160])
def test_the_live_view_fits_and_is_the_golden_one(width: int) -> None:
    console, clock = terminal(width), Clock()
    with live(console, Tally(RECIPE, 24, 2, clock)) as view:
        clock.now += 10
        view.clip_ended(result("003-a-red-circle"))
        screen = terminal(width)
        screen.print(view.view())
    drawn = without_styles(printed(screen))
    assert all(cell_len(line) <= width for line in drawn.splitlines())
    assert len(drawn.splitlines()) == 3 + len(STATES), "nothing wraps"
    golden = GOLDEN / f"live-{width}.txt"
    if golden.exists():  # the others are only measured
        assert "\n".join(line.rstrip() for line in drawn.splitlines()) == golden.read_text("utf-8").rstrip("\n")


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (40, "[1/2] 003-a-[bold]red…  done    2.4 s  …"),
        (80, "[1/2] 003-a-[bold]red[/bo…  done    2.4 s  encode 0.02 denoise 1.9 decode 0.4"),
        (160, "[1/2] 003-a-[bold]red[/bold]-circle-on-blue  done    2.4 s  encode 0.02 denoise 1.9 decode 0.4"),
    ],
)
def test_finished_clips_scroll_by_as_one_line(width: int, expected: str) -> None:
    console = terminal(width)
    with live(console, Tally(RECIPE, 2, 0, Clock())) as view:
        view.clip_ended(result("003-a-[bold]red[/bold]-circle-on-blue"))
        view.clip_ended(result("004", "denoise: RuntimeError: out of memory"))
    lines = without_styles(printed(console)).splitlines()
    assert any(line.strip() == expected for line in lines), lines
    assert any(line.startswith("[2/2] 004") and "failed  deno" in line for line in lines), lines


def test_the_pace_is_that_of_the_work_not_of_loading() -> None:
    clock = Clock()
    tally = Tally(RECIPE, 12, 2, clock)
    assert (tally.eta(), tally.pace()) == (None, "")
    clock.now += 20  # the models are loaded
    tally.stage_ended(Completion(Assignment(("003",), E, "gpu-0"), 19.0, 20.0, StageReport(1.0)))
    clock.now += 5
    tally.add(result("003"))
    assert tally.eta() == 54
    assert tally.pace() == "600 clips/h, 54 s left"
    clock.now += 4
    assert tally.eta() == 50
    clock.now += 60
    assert tally.pace() == "600 clips/h, later than planned"


def test_a_terminal_that_changes_its_width_is_drawn_anew() -> None:
    console, clock = terminal(80), Clock()
    with live(console, Tally(RECIPE, 2, 0, clock)) as view:
        view.clip_ended(result("003-a-red-circle"))
        before = len(printed(console))
        console.width = 40
        view._live.refresh()
        anew = printed(console)[before:]
    assert anew.startswith("\x1b[2J"), "nothing of the wider picture stays"
    lines = without_styles(anew).splitlines()
    assert any("[1/2] 003-a-red-circle" in line for line in lines), "clips that ended are told again"
    assert all(cell_len(line) <= 40 for line in lines)


def test_only_queues_that_a_clip_of_the_batch_passes_are_shown():
    text = result("a").request
    image = replace(text, conditions=(Condition("a.jpg", "12" * 32),))
    asked = dict.fromkeys(recipes.RECIPE.on_device, 1)
    assert set(queues_of([text], recipes.RECIPE, lambda: asked)()) == {E, D, V} < set(asked)
    shown = queues_of([text, image], recipes.RECIPE, lambda: asked)()
    assert shown == {stage: 1 for stage in asked if stage in recipes.RECIPE.of(image)} and len(shown) == 4
