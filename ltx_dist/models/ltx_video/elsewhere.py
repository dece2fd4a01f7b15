"""What may be assumed about a checkpoint of LTX-Video that is not on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.inputs.preset import TAKES_TIMESTEPS, Preset
from ltx_dist.models.ltx_video.presets import PRESETS, preset_for

ASSUMED_VERSION = "generic"
"""The version of `auto`: it refuses nothing that another one takes."""


def assumed(name: str, version: str) -> Iterator[tuple[Checkpoint, Preset]]:
    """A checkpoint that `model.checkpoint` and `model.version` may name, with its preset; none if not of this family.

    Sizes are those of every version that was released.
    """
    version = ASSUMED_VERSION if version == "auto" else version
    if version in PRESETS:
        unknown: dict[str, int] = dict.fromkeys(("text_encoder", "transformer", "vae"), 0)
        checkpoint = Checkpoint(
            name=name,
            path=Path(name),
            pipeline_class=TAKES_TIMESTEPS,
            spatial_compression_ratio=32,
            temporal_compression_ratio=8,
            timestep_conditioning=True,
            latent_channels=128,
            weights=unknown,
            num_parameters=unknown,
        )
        yield checkpoint, preset_for(version, checkpoint)
