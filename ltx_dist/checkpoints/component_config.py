"""The config of one component of a checkpoint, complete: what an old config.json leaves out is what was built then."""

from __future__ import annotations

from typing import Any

from ltx_dist.checkpoints.checkpoint import Checkpoint, InFile
from ltx_dist.checkpoints.versions import read_config
from ltx_dist.strict_files import read_json

DEFAULTS = {"text_encoder": "text_encoder", "transformer": "transformer-2b", "vae": "vae-0.9.0"}
"""The first version's configs have the values that diffusers' and transformers' classes take for what is missing."""


def component_config(checkpoint: Checkpoint, component: str) -> dict[str, Any]:
    """The config of any component. Configs of LTX-2, which is newer than its classes' defaults, leave nothing out."""
    source = checkpoint.source(component)
    if isinstance(source, InFile):
        return read_config(source.config_name) | source.changes
    given = read_json(source / "config.json")
    return given if checkpoint.generation else read_config(DEFAULTS[component]) | given


def noise_scheduler_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """As far as it is written down."""
    source = checkpoint.source("scheduler")
    if isinstance(source, InFile):
        return read_config(source.config_name) | source.changes
    return read_json(source / "scheduler_config.json")
