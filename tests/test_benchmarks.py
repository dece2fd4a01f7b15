"""The benchmarks that need no device keep up with the package: they run, and come close to the bound."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from ltx_dist.estimates.bounds import lower_bound

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))


@pytest.mark.parametrize("layout", ["pinned", "replicated"])
def test_simulate_counts_every_stage_of_every_clip(layout: str) -> None:
    from replay import Replayed, draw_works
    from simulate import bytes_a_clip, fleet, run
    from text_to_video import RECIPE, STAGES

    placement, works = fleet(layout, 2, mixed=False), draw_works(24, random.Random(0))
    seconds, decisions, makespan = run(placement, works)
    bound = lower_bound(list(works.values()), placement.workers, STAGES, Replayed(works)).seconds
    assert decisions == 24 * len(RECIPE.names) and seconds > 0
    assert bound <= makespan < 1.5 * bound
    assert bytes_a_clip(placement, works) > 0


def test_schedule_on_a_virtual_clock_comes_near_the_bound() -> None:
    from replay import draw_works
    from schedule import VirtualClock, best_split, measured, prepared

    works = draw_works(16, random.Random(0), "distilled")
    batch = prepared(best_split(2, works), works, seconds=36.0)
    (run,) = VirtualClock().run([batch])
    assert 1.0 <= measured(batch, run).ratio < 1.03
