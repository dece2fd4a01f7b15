"""Both views, drawn onto rich consoles of several widths."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from ltx_dist.output.progress import LiveProgress, PlainProgress, make_progress
from ltx_dist.types import (
    STAGES,
    Assignment,
    Completion,
    EncodedVideo,
    RenderRequest,
    RenderResult,
    Stage,
    StageReport,
    WorkerState,
)

STATES = [
    WorkerState("gpu-0", Stage.DENOISE, "019-a-[bold]red[/bold]-circle", 5, 8),
    WorkerState("a-worker-with-a-very-long-name", Stage.ENCODE_TEXT, "x" * 200),
    WorkerState("gpu-2", Stage.DECODE, "018-圆圆圆圆圆圆圆圆圆圆圆圆圆圆圆圆圆圆圆圆圆圆"),
    WorkerState("gpu-3"),
]


class Clock:
    """Time as a number to set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def result(request_id: str, error: str | None = None) -> RenderResult:
    request = RenderRequest(request_id, "a prompt", "", 64, 96, 17, 24.0, 8, 3.0, 0.0, 7, 0.0, None, 64)
    completions = tuple(
        Completion(Assignment(request_id, stage, "gpu-0"), 0.0, 1.0, StageReport(seconds, load_seconds=0.02))
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


def test_the_console_decides() -> None:
    assert isinstance(make_progress(1, 0, Console(file=io.StringIO()), lambda: STATES), PlainProgress)
    with make_progress(1, 0, terminal(80), lambda: STATES) as progress:
        assert isinstance(progress, LiveProgress)
    dumb = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})
    assert isinstance(make_progress(1, 0, dumb, lambda: STATES), PlainProgress)


@pytest.mark.parametrize("width", [40, 80, 160])
def test_plain_is_one_line_a_clip_at_any_width(width: int) -> None:
    console, clock = Console(file=io.StringIO(), width=width), Clock()
    with make_progress(24, 1, console, lambda: STATES, clock) as progress:
        progress.finished(result("003-a-red-circle"))
        progress.finished(result("004-a-blue-square", "denoise: RuntimeError: out of memory [/oops]\nmore\nlines"))
        clock.now += 75.4
    assert printed(console).splitlines() == [
        "[ 2/24] 003-a-red-circle              done    2.4 s  encode 0.02 denoise 1.9 decode 0.4",
        "[ 3/24] 004-a-blue-square             failed  denoise: RuntimeError: out of memory [/oops]",
        "24 clips: 2 done (1 of them before), 1 failed, 21 remaining, in 1 min 15 s",
    ]


def test_a_batch_without_trouble_ends_in_few_words() -> None:
    console = Console(file=io.StringIO(), width=80)
    with make_progress(1, 0, console, lambda: STATES, Clock()) as progress:
        progress.finished(result("001-a"))
    assert printed(console).splitlines()[-1] == "1 clip: 1 done, in 0 s"


def test_names_and_errors_cannot_steer_the_terminal() -> None:
    console = Console(file=io.StringIO(), width=80)
    with make_progress(2, 0, console, lambda: STATES, Clock()) as progress:
        progress.finished(result("a\x1b[2J\rb\u202e[red]c[/red]"))
        progress.finished(result("d", "\x07\x1b]0;title\x07boom\r\nmore"))
    lines = printed(console).splitlines()
    assert len(lines) == 3 and all(line.isprintable() for line in lines)
    assert "a [2J b [red]c[/red]" in lines[0] and "]0;title boom" in lines[1]


@pytest.mark.parametrize("width", [40, 80, 160])
def test_the_live_view_fits(width: int) -> None:
    console, clock = terminal(width), Clock()
    with make_progress(24, 2, console, lambda: STATES, clock) as progress:
        assert isinstance(progress, LiveProgress)
        clock.now += 10
        progress.finished(result("003-a-red-circle"))
        with console.capture() as capture:
            console.print(progress.view())
    view = without_styles(capture.get())
    assert all(cell_len(line) <= width for line in view.splitlines())
    for expected in ("3/24", "3 min 30 s left", "gpu-0", "denoise", "5/8", "encode", "decode", "gpu-3", "waits"):
        assert expected in view, (expected, view)


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
    with make_progress(2, 0, console, lambda: STATES, Clock()) as progress:
        progress.finished(result("003-a-[bold]red[/bold]-circle-on-blue"))
        progress.finished(result("004", "denoise: RuntimeError: out of memory"))
    lines = without_styles(printed(console)).splitlines()
    assert any(line.strip() == expected for line in lines), lines
    assert any(line.startswith("[2/2] 004") and "failed  deno" in line for line in lines), lines


def test_eta_counts_down_between_clips() -> None:
    clock = Clock()
    with make_progress(12, 2, terminal(80), lambda: STATES, clock) as progress:
        assert isinstance(progress, LiveProgress)
        tally = progress._tally
        assert tally.eta() is None
        clock.now += 6
        progress.finished(result("003"))
        assert tally.eta() == 54
        clock.now += 4
        assert tally.eta() == 50
        clock.now += 1000
        assert tally.eta() == 0
