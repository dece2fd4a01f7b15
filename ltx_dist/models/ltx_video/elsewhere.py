"""What may be assumed about a checkpoint of LTX-Video that is not on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ltx_dist.checkpoints.checkpoint import Checkpoint, unseen_checkpoint
from ltx_dist.inputs.preset import TAKES_TIMESTEPS, Preset
from ltx_dist.models.ltx_video.presets import PRESETS, preset_for

ASSUMED_VERSIONS = ("generic", "0.9.8-13b-distilled")
"""The versions `auto` may be: the first accepts whatever the others accept, but was not published with two passes."""


def assumed(name: str, version: str, upscaler: str | None) -> Iterator[tuple[Checkpoint, Preset]]:
    """Checkpoints that `model.checkpoint`, `version` and `upscaler` may name, with presets; none for another family."""
    sources = {"latent_upsampler": Path(upscaler)} if upscaler else {}
    checkpoint = replace(unseen_checkpoint(name, TAKES_TIMESTEPS), sources=sources)
    for one in ASSUMED_VERSIONS if version == "auto" else (version,):
        if one in PRESETS:
            yield checkpoint, preset_for(one, checkpoint)
