"""Shows a live view of fixed states in a terminal: `python live_scene.py`, until the terminal closes."""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from builders import RECIPE
from rich.console import Console
from test_progress import Clock, live, result

from ltx_dist.report.tally import Tally

if __name__ == "__main__":
    clock = Clock()
    with live(Console(), Tally(RECIPE, 24, 2, clock)) as view:
        clock.now += 10
        view.clip_ended(result("003-a-red-circle"))
        time.sleep(300)
