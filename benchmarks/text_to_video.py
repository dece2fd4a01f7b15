"""Clips made from text alone: their stages, for benchmarks that replay their times, and the demo's prompts for them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

from ltx_dist.demo import PROMPTS
from ltx_dist.models.family import FAMILIES
from ltx_dist.models.ltx_video.recipes import RECIPE as WHOLE
from ltx_dist.planning.simulator import Todo

RECIPE = WHOLE.always
FAMILY = replace(FAMILIES[0], recipe=RECIPE)
E, D, V, M = RECIPE.names
STAGES = RECIPE.on_device


def all_stages(request_ids: Iterable[str]) -> Todo:
    """All stages of every request, in the order of `request_ids`."""
    return dict.fromkeys(request_ids, RECIPE.names)


def write_demo_prompts(folder: Path, num_clips: int) -> Path:
    """Write a file of this many prompts: in turn, those of the demo that need neither an image nor a second pass."""
    rows = [json.loads(line) for line in PROMPTS.read_text("utf-8").splitlines()]
    texts = [row["prompt"] for row in rows if row.keys() == {"prompt"}]
    path = folder / "prompts.txt"
    path.write_text("\n".join(islice(cycle(texts), num_clips)), "utf-8")
    return path
