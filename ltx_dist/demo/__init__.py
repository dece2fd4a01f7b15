"""The packaged small model and its prompts: the whole path, offline, on any machine.

Eight of the clips are from text, one is from an image, and one is of two passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ltx_dist.inputs.config import RenderConfig
from ltx_dist.inputs.config_file import load_config

PROMPTS = Path(__file__).parent / "prompts.jsonl"

PACKAGED_UPSCALER = ("model.upscaler=demo",)
"""For the clip of two passes, with any config."""

ONE_ACTOR_A_STAGE = ("placement.layout=pinned", "placement.device=cpu", "placement.threads=1")
"""Shows the overlap of the stages on any machine; not the fastest layout for a model this small."""

NO_CACHE = ("cache.embeddings=null",)
"""Runs all three stages every time, so that there is always something to see."""


def demo_config(overrides: Sequence[str]) -> RenderConfig:
    """The demo's settings with the user's own on top. Raises ValueError as `load_config` does."""
    return load_config(None, [*PACKAGED_UPSCALER, *ONE_ACTOR_A_STAGE, *NO_CACHE, *overrides])
