"""The table of LTX-Video's presets: each version's settings, for what neither row nor config sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from ltx_dist.checkpoints.checkpoint import DEMO_MODEL, Checkpoint
from ltx_dist.checkpoints.versions import ARCHITECTURES
from ltx_dist.inputs.preset import TAKES_TIMESTEPS, Preset, TwoPasses, with_settings, without_setting

# The pipelines' own decode settings are 0.0, which looks soft; 0.05 and 0.025 are those of every published config. A
# VAE without timestep conditioning ignores them, so they are right for both kinds.
_GENERIC = Preset(
    version="generic",
    settings={
        "height": 512,
        "width": 704,
        "num_frames": 161,
        "frame_rate": 25.0,
        "num_inference_steps": 50,
        "guidance_scale": 3.0,
        "guidance_rescale": 0.0,
        "decode_timestep": 0.05,
        "decode_noise_scale": 0.025,
        "max_sequence_length": 128,
        "negative_prompt": "",
        "image_cond_noise_scale": 0.15,  # also the default of Lightricks' inference.py
    },
    source="defaults of LTXPipeline.__call__ in diffusers 0.42",
)

_DEMO = replace(
    with_settings(_GENERIC, height=128, width=128, num_frames=25, frame_rate=12.0, num_inference_steps=25),
    version="demo",
    source="what the packaged model was trained for",
)

# Commits, because files move: the configs of 0.9.7 became those of 0.9.8 in 02844ce.
_CONFIGS = "github.com/Lightricks/LTX-Video/blob/5260738e171955b66c0827f9af7e84d68fd1d919/configs"
_CONFIGS_097 = "github.com/Lightricks/LTX-Video/blob/20799e51cd739986d98d9b1aab55cc2067c1eabb/configs"
_SIZES = "sizes: diffusers' defaults"
_NO_STG = "made with spatio-temporal guidance (STG, a third pass a step), which diffusers' pipelines do not have"
_ONE_SCALE = "made in two passes with a latent upscaler between them (model.upscaler); this is one pass at full size"
_DOCS = "huggingface.co/docs/diffusers/v0.35.0/en/api/pipelines/ltx_video"

# Not 2 / 3: this published factor turns 768 pixels into 480, not 512, because 511 is rounded down.
_PUBLISHED_FACTOR = 0.6666666

# AdaIN is 1 in LTXMultiScalePipeline whatever the config, and the noise on conditions inference.py's default.
_TWO_DISTILLED = TwoPasses(
    first={"timesteps": (1000.0, 993.7, 987.5, 981.2, 975.0, 909.4, 725.0)},
    second={
        "downscale_factor": _PUBLISHED_FACTOR,
        "timesteps": (909.4, 725.0, 421.9),
        "guidance_scale": 1.0,
        "guidance_rescale": 0.0,
        "image_cond_noise_scale": 0.15,
        "adain_factor": 1.0,
    },
    source=f"{_CONFIGS}/ltxv-13b-0.9.8-distilled.yaml, without its tone mapping",
)

_TWO_DISTILLED_13B = TwoPasses(
    first=_TWO_DISTILLED.first,
    second={**_TWO_DISTILLED.second, "tone_map_compression_ratio": 0.6, "tone_map_at": "decode"},
    source=f"{_CONFIGS}/ltxv-13b-0.9.8-distilled.yaml",
)

# The published guidance is a list per step with STG in both passes; this is what diffusers' own example does instead.
_TWO_DEV = TwoPasses(
    first={
        "num_inference_steps": 30,
        "guidance_scale": 5.0,
        "guidance_rescale": 0.7,
        "image_cond_noise_scale": 0.0,
    },
    second={
        "downscale_factor": 2 / 3,
        "num_inference_steps": 10,
        "denoise_strength": 0.4,
        "guidance_scale": 5.0,
        "guidance_rescale": 0.7,
        "image_cond_noise_scale": 0.0,
        "adain_factor": 0.0,
    },
    source=f"{_DOCS}, the example for 0.9.7-dev",
    note=f"guidance as in diffusers' example; {_NO_STG}",
)

# 40 steps, guidance 3, 256 tokens, as trained.
_2B = replace(
    with_settings(_GENERIC, num_inference_steps=40, max_sequence_length=256),
    source=f"{_CONFIGS}/ltxv-2b-0.9.yaml; {_SIZES}",
    note=_NO_STG,
)

_2B_DISTILLED = replace(
    with_settings(_2B, num_inference_steps=8, guidance_scale=1.0),
    source=f"{_CONFIGS}/ltxv-2b-0.9.6-distilled.yaml; {_SIZES}",
    note="made with fresh noise in each step, which a diffusers folder can ask for (stochastic_sampling in its "
    "scheduler's config); from a single file it is rendered without",
)

_13B_DEV = replace(
    with_settings(_2B, num_inference_steps=30),
    source=f"{_CONFIGS_097}/ltxv-13b-0.9.7-dev.yaml; guidance and {_SIZES}",
    note=f"made with a guidance of its own in each step; {_NO_STG}; {_ONE_SCALE}",
    two_passes=_TWO_DEV,
)

# The timesteps of the first pass, which ends at 0.725, and the last one of the second, x 1000.
_DISTILLED = replace(
    with_settings(
        _2B,
        num_inference_steps=8,
        timesteps=(1000.0, 993.7, 987.5, 981.2, 975.0, 909.4, 725.0, 421.9),
        guidance_scale=1.0,
    ),
    source=f"{_CONFIGS}/ltxv-13b-0.9.8-distilled.yaml, timesteps of both passes; {_SIZES}",
    note=_ONE_SCALE,
    two_passes=_TWO_DISTILLED,
)

_ROWS = (
    _DEMO,
    replace(_2B, version="0.9.0"),
    replace(_2B, version="0.9.1", source=f"{_CONFIGS}/ltxv-2b-0.9.1.yaml; {_SIZES}"),
    replace(_2B, version="0.9.5", source=f"{_CONFIGS}/ltxv-2b-0.9.5.yaml; {_SIZES}"),
    replace(_2B, version="0.9.6-dev", source=f"{_CONFIGS}/ltxv-2b-0.9.6-dev.yaml; {_SIZES}"),
    replace(_2B_DISTILLED, version="0.9.6-distilled"),
    replace(_13B_DEV, version="0.9.7-13b-dev"),
    replace(
        _DISTILLED,
        version="0.9.7-13b-distilled",
        source=f"{_CONFIGS_097}/ltxv-13b-0.9.7-distilled.yaml, timesteps of both passes; {_SIZES}",
        two_passes=replace(_TWO_DISTILLED, source=f"{_CONFIGS_097}/ltxv-13b-0.9.7-distilled.yaml"),
    ),
    replace(
        _13B_DEV,
        version="0.9.8-13b-dev",
        source=f"{_CONFIGS}/ltxv-13b-0.9.8-dev.yaml; guidance and {_SIZES}",
    ),
    replace(_DISTILLED, version="0.9.8-13b-distilled", two_passes=_TWO_DISTILLED_13B),
    replace(
        _DISTILLED,
        version="0.9.8-2b-distilled",
        source=f"{_CONFIGS}/ltxv-2b-0.9.8-distilled.yaml, timesteps of both passes; {_SIZES}",
        two_passes=replace(_TWO_DISTILLED, source=f"{_CONFIGS}/ltxv-2b-0.9.8-distilled.yaml"),
    ),
    _GENERIC,
)

PRESETS: Mapping[str, Preset] = MappingProxyType({row.version: row for row in _ROWS})

CONDITION_PIPELINE_TOKENS = 256
"""LTXConditionPipeline's own default of max_sequence_length in diffusers 0.42; LTXPipeline's is 128."""

NUM_LAYERS_13B = 48
"""Number of transformer blocks of a 13B; a 2B has 28. diffusers, too, tells them apart by the 48th block."""


def preset_for(version: str, checkpoint: Checkpoint) -> Preset:
    """The preset that `model.version` names, or, for `auto`, the checkpoint's. Raises ValueError if there is none."""
    if version == "auto":
        version = detect_version(checkpoint)
    if version not in PRESETS:
        raise ValueError(f"model.version: no preset {version!r}; use auto, {', '.join(PRESETS)}")
    preset = PRESETS[version]
    if preset is _GENERIC and checkpoint.pipeline_class == TAKES_TIMESTEPS:
        return with_settings(preset, max_sequence_length=CONDITION_PIPELINE_TOKENS)
    if "timesteps" in preset.settings and checkpoint.pipeline_class != TAKES_TIMESTEPS:
        return without_setting(preset, "timesteps")
    return preset


def detect_version(checkpoint: Checkpoint) -> str:
    """The most likely version of a checkpoint; `generic` if it is none of LTX-Video's."""
    return _candidates(checkpoint)[0]


def assumption(checkpoint: Checkpoint) -> str | None:
    """A sentence about what `detect_version` had to assume; None if the checkpoint shows its version."""
    assumed, *alike = _candidates(checkpoint)
    if not alike:
        return None
    return f"{assumed} is assumed, because nothing tells it from {', '.join(alike)}; to be sure, set model.version"


def _telling_part(path: Path) -> str:
    """The name of the folder or file; in the hub's cache, where that is a commit, the model's name further up."""
    return next((part for part in reversed(path.parts) if part.startswith("models--")), path.name)


def _candidates(checkpoint: Checkpoint) -> list[str]:
    """The versions that a checkpoint could have, the most likely first.

    From 0.9.5 on all versions have the same VAE; only names tell them apart, and the metadata of some distilled files.
    """
    if checkpoint.path.resolve() == DEMO_MODEL.resolve():
        return ["demo"]
    ratios = (checkpoint.spatial_compression_ratio, checkpoint.temporal_compression_ratio)
    if (*ratios, checkpoint.latent_channels) != (32, 8, 128):
        return ["generic"]
    if not checkpoint.timestep_conditioning:
        return ["generic" if checkpoint.decoder_inject_noise else "0.9.0"]
    if checkpoint.decoder_inject_noise:
        return ["0.9.1"]
    is_13b = checkpoint.num_layers == NUM_LAYERS_13B
    alike = [
        row
        for row, it in ARCHITECTURES.items()
        if it.vae == "vae-0.9.5" and (it.transformer == "transformer-13b") == is_13b
    ]
    name = _telling_part(Path(checkpoint.name)).lower()
    named = [row for row in alike if row.partition("-")[0] in name]
    distilled = "distilled" in name or checkpoint.distilled is True
    found = named or alike
    if distilled or "-dev" in name:
        found = [row for row in found if row.endswith("distilled") == distilled] or found
    return found
