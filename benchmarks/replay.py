"""Published and computed stage times of GPUs, which benchmarks replay where there are no GPUs.

The seconds are for 704x480x121 on an RTX 4090. Those for denoising are computed from the 97 TFLOP/s that
github.com/sayakpaul/q8-ltx-video measured; those for decoding are estimated at 35 % of the card's peak.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass

from text_to_video import STAGES, M

from ltx_dist.estimates.costs import Work, pass_seconds
from ltx_dist.pipeline.work import Assignment, Completion
from ltx_dist.pipeline.worker import Worker

PASS_SECONDS = {"2b": 0.2475, "13b": 1.463}
"""Duration of one transformer pass at REFERENCE_TOKENS."""

ENCODE_SECONDS, DECODE_SECONDS = 0.04, 0.89
REFERENCE_TOKENS = 5280

SIZES = [(704, 480, 121), (768, 512, 97), (768, 512, 121), (960, 544, 121), (1216, 704, 121), (704, 480, 161)]
"""Width, height, frames."""

PASSES = {"40-step": ("2b", (60, 80, 100, 120)), "distilled": ("2b", (8, 8, 10)), "13B distilled": ("13b", (7, 8, 10)),
          "mixed": ("2b", (8, 20, 40, 80, 120))}  # fmt: skip
"""The transformer, and the numbers of passes that its clips may have, by case."""

SPEED = {"H200": 4.9, "H100": 4.0, "A100": 1.6, "L40S": 1.5, "4090": 1.0, "3090": 0.45, "3060": 0.17}
"""Speeds relative to an RTX 4090, from the published tensor TFLOP/s."""


def draw_works(num_clips: int, rng: random.Random, case: str = "mixed") -> dict[str, Work]:
    """Seconds of each stage of each clip on an RTX 4090, with sizes and passes drawn at random."""
    model, passes = PASSES[case]
    works: dict[str, Work] = {}
    for index in range(num_clips):
        width, height, frames = rng.choice(SIZES)
        tokens = ((frames - 1) // 8 + 1) * (width // 32) * (height // 32)
        # At the reference size, 27 % of a pass is attention, whose work grows with the square of the tokens.
        growth = tokens / REFERENCE_TOKENS
        denoise = PASS_SECONDS[model] * rng.choice(passes) * (0.73 * growth + 0.27 * growth**2)
        works[f"r{index:06}"] = (ENCODE_SECONDS, denoise, DECODE_SECONDS * growth)
    return works


@dataclass(frozen=True)
class Replayed:
    """Costs that are known exactly: `Work` is in seconds on an RTX 4090. swap: seconds that each swap takes."""

    works: dict[str, Work]
    swap: float = 0.0

    def work(self, request_id: str, stage: str) -> float:
        return self.works[request_id][STAGES.index(stage)]

    def rate(self, worker: Worker, stage: str) -> float:
        return next((speed for part, speed in SPEED.items() if part in worker.device_name), 1.0)

    def swap_seconds(self, worker: Worker, components: Collection[str]) -> float:
        return self.swap

    def observe(self, completion: Completion, worker: Worker) -> bool:
        return False

    def seconds(self, assignment: Assignment, worker: Worker) -> float:
        if assignment.stage == M:
            return 0.0
        return pass_seconds(self, assignment, worker)
