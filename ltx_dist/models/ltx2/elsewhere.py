"""What may be assumed about a checkpoint of LTX-2 that is not on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ltx_dist.checkpoints.checkpoint import Checkpoint, unseen_checkpoint
from ltx_dist.inputs.preset import Preset
from ltx_dist.models.ltx2.presets import PRESETS

ASSUMED_VERSIONS = ("2.3", "2.3-distilled")
"""The versions `auto` may be: the first accepts whatever the others accept, but was not published with two passes."""


def assumed(name: str, version: str, upscaler: str | None) -> Iterator[tuple[Checkpoint, Preset]]:
    """Checkpoints that `model.checkpoint` and `model.version` may name, with presets; none if they name another family.

    Each is assumed once without a latent upsampler and once with one, which would be in the checkpoint itself.
    """
    unseen = unseen_checkpoint(name, "LTX2Pipeline")
    for one in ASSUMED_VERSIONS if version == "auto" else (version,):
        if one in PRESETS:
            without = replace(unseen, num_layers=48, generation=one.removesuffix("-distilled"))
            yield without, PRESETS[one]
            yield replace(without, sources={"latent_upsampler": Path(name, "latent_upsampler")}), PRESETS[one]
