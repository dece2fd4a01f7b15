"""The packaged small model and its prompts: the whole path, offline, on any machine.

Eight of the clips are from text, one is from an image, and one is of two passes. The place of the image,
`demo://first_frame.png`, is the package on whichever machine opens it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ltx_dist.inputs.config import RenderConfig
from ltx_dist.inputs.config_file import load_config

PROMPTS = Path(__file__).parent / "prompts.jsonl"

ONE_ACTOR_A_STAGE = ("placement.layout=pinned", "placement.device=cpu", "placement.threads=1")
"""Shows the overlap of the stages on any machine; not the fastest layout for a model this small."""

NO_CACHE = ("cache.embeddings=null",)
"""Runs all three stages every time, so that there is always something to see."""


def demo_config(overrides: Sequence[str]) -> RenderConfig:
    """The demo's settings with the user's own on top. Raises ValueError as `load_config` does."""
    return load_config(None, [*ONE_ACTOR_A_STAGE, *NO_CACHE, *overrides])


def with_packaged_upscaler(config: RenderConfig) -> RenderConfig:
    """The config with the packaged upscaler, for the clip of two passes, if it has the packaged model and no other
    upscaler."""
    model = config.model
    if model.checkpoint != "demo" or model.upscaler is not None:
        return config
    return config.model_copy(update={"model": model.model_copy(update={"upscaler": "demo"})})


def demo_prompts(config: RenderConfig) -> str | list[dict[str, Any]]:
    """The packaged prompts; for another model their rows without that of two passes, whose settings fit no other."""
    if config.model.checkpoint == "demo":
        return str(PROMPTS)
    rows = [json.loads(line) for line in PROMPTS.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if "second_pass" not in row]
