"""Planning takes nearly the same work per clip in a batch of any length, even if no two clips are alike."""

from __future__ import annotations

import io
import json
import random
from cProfile import Profile
from pathlib import Path

import pytest
from rich.console import Console

from ltx_dist.api.planning import plan_of
from ltx_dist.commands.plan_table import print_plan
from ltx_dist.inputs.config import RenderConfig
from ltx_dist.placement.inventory import Inventory
from ltx_dist.placement.local_devices import with_described
from ltx_dist.run.batch import open_batch

CALLS_PER_CLIP = 650
"""Python calls that a further clip of a new shape may cost: fewer than there are tilings to choose from."""


def calls_to_plan(prompts: Path) -> int:
    """The number of calls of Python functions, which is the same on every machine, unlike seconds."""
    profile = Profile(builtins=False)
    inventory = with_described(Inventory((), 4, 64_000_000_000), "cuda", 1, 24.0)
    config = RenderConfig.model_validate({"placement": {"device": "cuda", "devices": 1, "memory_gb": 24.0}})
    with profile:
        print_plan(plan_of(open_batch(str(prompts), config), inventory), Console(file=io.StringIO(), width=100))
    return sum(one.callcount for one in profile.getstats())


def unlike_clips(path: Path, number: int) -> Path:
    rng = random.Random(0)
    rows = [
        {
            "prompt": f"clip {n}", "height": 32 * rng.randint(2, 40), "width": 32 * rng.randint(2, 40),
            "num_frames": 4 * rng.randint(1, 60) + 1, "num_inference_steps": rng.randint(5, 50),
        }
        for n in range(number)
    ]  # fmt: skip
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.mark.fault(24)
def test_a_further_unlike_clip_adds_little_work_to_a_plan(tmp_path: Path) -> None:
    # Beyond 1000 clips a sample is simulated.
    short, long = unlike_clips(tmp_path / "short.jsonl", 1100), unlike_clips(tmp_path / "long.jsonl", 1500)
    unlike_clips(tmp_path / "warm.jsonl", 10)
    calls_to_plan(tmp_path / "warm.jsonl")  # imports modules, and fills the caches of the process
    more = calls_to_plan(long) - calls_to_plan(short)
    assert more / 400 < CALLS_PER_CLIP
