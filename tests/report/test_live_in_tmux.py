"""The live view in a real terminal: the screen of tmux equals the golden text while the view is redrawn."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_progress import GOLDEN

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")

FRAMES = 12
"""Number of screens to look at, a fifth of a second apart: the view is redrawn four times a second."""


class Tmux:
    """A tmux server of its own, so that no other sessions or settings matter."""

    def __init__(self, name: str) -> None:
        self._command = ["tmux", "-u", "-L", name, "-f", "/dev/null"]

    def __call__(self, *arguments: str) -> str:
        environment = os.environ | {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
        environment.pop("TMUX", None)
        return subprocess.run(
            [*self._command, *arguments], env=environment, check=True, capture_output=True, text=True, timeout=60
        ).stdout

    def screen(self) -> list[str]:
        lines = [line.rstrip() for line in self("capture-pane", "-p").splitlines()]
        return [line for line in lines if line]


@contextmanager
def terminal(width: int) -> Iterator[Tmux]:
    tmux = Tmux(f"ltx-{os.getpid()}-{width}")
    scene = f"{sys.executable} {Path(__file__).with_name('live_scene.py')}"
    tmux("new-session", "-d", "-x", str(width), "-y", "24", scene)
    try:
        yield tmux
    finally:
        tmux("kill-server")


def wait_for(tmux: Tmux, line: str) -> None:
    deadline = time.monotonic() + 60
    while line not in tmux.screen():
        assert time.monotonic() < deadline, tmux.screen()
        time.sleep(0.1)


@pytest.mark.parametrize("width", [80, 160])
def test_the_screen_is_the_golden_text_in_every_frame(width: int) -> None:
    golden = (GOLDEN / f"live-{width}.txt").read_text("utf-8").rstrip("\n").splitlines()
    with terminal(width) as tmux:
        wait_for(tmux, golden[0])  # the clip is reported at once, and counted in the next frame
        for _ in range(FRAMES):
            first, *view = tmux.screen()
            assert first.startswith("[ 3/24] 003-a-red-circle") and view == golden
            time.sleep(0.2)
