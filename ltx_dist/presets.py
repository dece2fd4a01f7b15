"""One table: LTX-Video version -> the settings its clips are made with where neither prompt nor config says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from ltx_dist.checkpoints.checkpoint import DEMO_MODEL, Checkpoint


@dataclass(frozen=True, slots=True)
class Preset:
    """Defaults of one version, under diffusers' names. Sizes are pixels; frame_rate is frames a second.

    decode_noise_scale None means decode_timestep's value, as in diffusers. source: where the values are from.
    """

    version: str
    height: int
    width: int
    num_frames: int
    frame_rate: float
    num_inference_steps: int
    guidance_scale: float
    guidance_rescale: float
    decode_timestep: float
    decode_noise_scale: float | None
    max_sequence_length: int
    negative_prompt: str
    source: str


_DIFFUSERS = Preset(
    version="0.9.0",
    height=512,
    width=704,
    num_frames=161,
    frame_rate=25.0,
    num_inference_steps=50,
    guidance_scale=3.0,
    guidance_rescale=0.0,
    decode_timestep=0.0,
    decode_noise_scale=None,
    max_sequence_length=128,
    negative_prompt="",
    source="defaults of LTXPipeline.__call__ in diffusers 0.42",
)

# The decode settings of every published VAE that is conditioned on a timestep:
# https://github.com/Lightricks/LTX-Video/tree/main/configs. Pipelines default to 0.0, which looks soft.
_CONDITIONED = replace(
    _DIFFUSERS,
    decode_timestep=0.05,
    decode_noise_scale=0.025,
    source=f"{_DIFFUSERS.source}; decode settings of the configs in github.com/Lightricks/LTX-Video",
)

_DEMO = Preset(
    version="demo",
    height=128,
    width=128,
    num_frames=25,
    frame_rate=12.0,
    num_inference_steps=25,
    guidance_scale=3.0,
    guidance_rescale=0.0,
    decode_timestep=0.05,
    decode_noise_scale=0.025,
    max_sequence_length=128,
    negative_prompt="",
    source="what the packaged model was trained for",
)

_ROWS = (
    _DEMO,
    _DIFFUSERS,
    replace(_CONDITIONED, version="0.9.1"),
    replace(_CONDITIONED, version="0.9.5"),
    # A VAE without timestep conditioning ignores the decode settings, so they are right for both kinds.
    replace(_CONDITIONED, version="generic"),
)

PRESETS: Mapping[str, Preset] = MappingProxyType({row.version: row for row in _ROWS})

CONDITION_PIPELINE_TOKENS = 256
"""LTXConditionPipeline's own default of max_sequence_length in diffusers 0.42; LTXPipeline's is 128."""


def detect_version(checkpoint: Checkpoint) -> str:
    """The row of the table a checkpoint's VAE belongs to; `generic` where it is none of LTX-Video's."""
    if checkpoint.path.resolve() == DEMO_MODEL.resolve():
        return "demo"
    shape = (
        checkpoint.spatial_compression_ratio,
        checkpoint.temporal_compression_ratio,
        checkpoint.latent_channels,
    )
    if shape != (32, 8, 128):
        return "generic"
    if not checkpoint.timestep_conditioning:
        return "generic" if checkpoint.decoder_inject_noise else "0.9.0"
    return "0.9.1" if checkpoint.decoder_inject_noise else "0.9.5"


def preset_for(version: str, checkpoint: Checkpoint) -> Preset:
    """The row that `model.version` names, or for `auto` the one the checkpoint shows. ValueError if there is none."""
    if version == "auto":
        version = detect_version(checkpoint)
    if version not in PRESETS:
        raise ValueError(f"model.version: no preset {version!r}; use auto, {', '.join(PRESETS)}")
    preset = PRESETS[version]
    if checkpoint.pipeline_class == "LTXConditionPipeline" and preset is not _DEMO:
        return replace(preset, max_sequence_length=CONDITION_PIPELINE_TOKENS)
    return preset
