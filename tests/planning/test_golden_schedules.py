"""Recorded orders of the assignments of whole batches on a virtual clock: a refactoring must not change any of them.

Each value is the sha256 of one line per completion, in the order of their ends. If the policy changes on purpose, print
the new values with `python -m pytest tests/planning/test_golden_schedules.py` and say why in docs/decisions.md.
"""

from __future__ import annotations

import hashlib
import random

import pytest
from builders import RECIPE

from ltx_dist.estimates.costs import PredictedCosts, Work
from ltx_dist.models.ltx_video.estimates import STAGE_RATES
from ltx_dist.pipeline.worker import Placement
from ltx_dist.placement.fitting import BatchDemand, Models
from ltx_dist.placement.inventory import DeviceInfo, Inventory
from ltx_dist.placement.placement import Wishes, place
from ltx_dist.planning.ordering import best_order
from ltx_dist.planning.simulator import predict

GB = 10**9
BYTES = {"text_encoder": int(9.525e9), "transformer": int(3.847e9), "vae": int(1.106e9)}
SIZES = [(704, 480, 121), (768, 512, 97), (960, 544, 121), (1216, 704, 121), (704, 480, 161)]
PASSES = {"40-step": (60, 80, 100, 120), "distilled": (8, 8, 10), "mixed": (8, 20, 40, 80, 120)}

H100, RTX_4090, RTX_3060 = "NVIDIA H100 80GB HBM3", "NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 3060"
MIXED = [(H100, 80), (RTX_4090, 24), (RTX_4090, 24), (RTX_3060, 8)]

GOLDEN: dict[tuple[str, str], tuple[str, str]] = {
    ("one card in turns", "40-step"): ("as given", "a7eb71590de38123"),
    ("one card in turns", "distilled"): ("as given", "a7eb71590de38123"),
    ("one card in turns", "mixed"): ("as given", "a7eb71590de38123"),
    ("three pinned", "40-step"): ("as given", "da6dca5654b0581e"),
    ("three pinned", "distilled"): ("as given", "15211e1ca625f40a"),
    ("three pinned", "mixed"): ("as given", "da6dca5654b0581e"),
    ("eight pinned", "40-step"): ("short ones last", "c4585b44ad7e3141"),
    ("eight pinned", "distilled"): ("as given", "0e5690d240b2da63"),
    ("eight pinned", "mixed"): ("long and short alternating", "5a63b0df254e9531"),
    ("four replicated", "40-step"): ("short ones last", "afcf162ed95de52a"),
    ("four replicated", "distilled"): ("longest first", "da11ead5b69958e8"),
    ("four replicated", "mixed"): ("longest first", "2130e2ffdeb35341"),
    ("mixed elastic", "40-step"): ("short ones last", "fdea032eeb1c1a00"),
    ("mixed elastic", "distilled"): ("long and short alternating", "717bc771ab0d3a87"),
    ("mixed elastic", "mixed"): ("long and short alternating", "086e5e5fdad418fb"),
}


def operations(num_clips: int, case: str) -> dict[str, Work]:
    """The operations of each stage of clips with random sizes and numbers of passes."""
    rng = random.Random(7)
    works: dict[str, Work] = {}
    for index in range(num_clips):
        width, height, frames = rng.choice(SIZES)
        tokens = ((frames - 1) // 8 + 1) * (width // 32) * (height // 32)
        works[f"r{index:03}"] = 1.19e12, 4.55e9 * tokens * rng.choice(PASSES[case]), 9.85e9 * tokens
    return works


def placed(layout: str, gpus: list[tuple[str, int]]) -> Placement:
    devices = tuple(DeviceInfo(name, memory * GB, index=index) for index, (name, memory) in enumerate(gpus))
    return place(Wishes(layout=layout), Inventory(devices, 16), BatchDemand(Models(RECIPE, BYTES)))  # pyright: ignore[reportArgumentType]


PLACEMENTS = {
    "one card in turns": ("shared", [(RTX_4090, 12)]),
    "three pinned": ("pinned", [(RTX_4090, 24)] * 3),
    "eight pinned": ("pinned", [(RTX_4090, 80)] * 8),
    "four replicated": ("replicated", [(RTX_4090, 80)] * 4),
    "mixed elastic": ("elastic", MIXED),
}


@pytest.mark.parametrize("case", PASSES)
@pytest.mark.parametrize("name", PLACEMENTS)
def test_assignments_are_those_recorded(name: str, case: str):
    placement, works = placed(*PLACEMENTS[name]), operations(40, case)
    costs = PredictedCosts(RECIPE, works, STAGE_RATES, BYTES)
    order = best_order(placement, dict.fromkeys(works, RECIPE.names), costs)
    completions = predict(placement, dict.fromkeys(order.request_ids, RECIPE.names), costs)
    lines = [f"{c.assignment.request_ids[0]} {c.assignment.stage} {c.assignment.worker_id}" for c in completions]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    assert (order.name, digest) == GOLDEN[name, case]
