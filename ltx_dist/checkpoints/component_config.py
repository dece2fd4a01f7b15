"""The complete config of a component: what an old config.json leaves out has the value of the first version."""

from __future__ import annotations

from typing import Any

from ltx_dist.checkpoints.checkpoint import Checkpoint, InFile
from ltx_dist.checkpoints.versions import read_config
from ltx_dist.strict_files import read_json

HALVES = {"vae_encoder": "vae"}

DEFAULTS = {"text_encoder": "text_encoder", "transformer": "transformer-2b", "vae": "vae-0.9.0"}
"""Packaged configs of the first version, by component: the defaults of diffusers' and transformers' classes."""


def component_config(checkpoint: Checkpoint, component: str) -> dict[str, Any]:
    """The config of any component; for either half of a VAE, that of the whole; empty for a missing latent upsampler.

    Configs of LTX-2, which is newer than its classes' defaults, leave nothing out.
    """
    component = HALVES.get(component, component)
    if component == "latent_upsampler" and component not in checkpoint.weights:
        return {}
    source = checkpoint.source(component)
    if isinstance(source, InFile):
        # An official upscaler's config is all in its file.
        return (read_config(source.config_name) if component in DEFAULTS else {}) | source.changes
    given = read_json(source / "config.json")
    older = component in DEFAULTS and not checkpoint.generation
    return read_config(DEFAULTS[component]) | given if older else given


def noise_scheduler_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The noise scheduler's config, without what the checkpoint leaves to the class's defaults."""
    source = checkpoint.source("scheduler")
    if isinstance(source, InFile):
        return read_config(source.config_name) | source.changes
    return read_json(source / "scheduler_config.json")
