"""The table of LTX-2's presets: each version's settings, for what neither row nor config sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.inputs.preset import Preset, TwoPasses, with_settings, without_setting

DISTILLED_SIGMAS = (1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875)
SECOND_SIGMAS = (0.909375, 0.725, 0.421875)
IMAGE_CRF, IMAGE_CRF_2_5 = 33, 18
"""CRF with which an image is compressed before it is encoded, as in training: DEFAULT_IMAGE_CRF and LTX2_5_IMAGE_CRF of
diffusers 0.42.1, which chooses between them by the text encoder."""

_CONSTANTS = "DISTILLED_SIGMA_VALUES and STAGE_2_DISTILLED_SIGMA_VALUES of pipelines/ltx2/utils.py in diffusers 0.42.1"
_DOCS = "docs/source/en/api/pipelines/ltx2.md of diffusers 0.42"

# Sizes, length and guidance are the defaults of LTX2Pipeline.__call__ in diffusers 0.42.1, where all eight are on.
_GUIDED = Preset(
    version="2.3",
    settings={
        "height": 512,
        "width": 768,
        "num_frames": 121,
        "frame_rate": 24.0,
        "num_inference_steps": 30,
        "guidance_scale": 3.0,
        "guidance_rescale": 0.7,
        "stg_scale": 1.0,
        "modality_scale": 3.0,
        "audio_guidance_scale": 7.0,
        "audio_guidance_rescale": 0.7,
        "audio_stg_scale": 1.0,
        "audio_modality_scale": 3.0,
        "spatio_temporal_guidance_blocks": (28,),
        "decode_timestep": 0.0,
        "decode_noise_scale": None,
        "max_sequence_length": 1024,
        "negative_prompt": "",
        "image_cond_noise_scale": 0.15,
        "crf": IMAGE_CRF,
    },
    source="defaults of LTX2Pipeline.__call__ in diffusers 0.42.1",
)

_DISTILLED = replace(
    without_setting(
        with_settings(
            _GUIDED,
            num_inference_steps=len(DISTILLED_SIGMAS),
            sigmas=DISTILLED_SIGMAS,
            guidance_scale=1.0,
            guidance_rescale=0.0,
            stg_scale=0.0,
            modality_scale=1.0,
            audio_guidance_scale=1.0,
            audio_guidance_rescale=0.0,
            audio_stg_scale=0.0,
            audio_modality_scale=1.0,
        ),
        "spatio_temporal_guidance_blocks",
    ),
    source=f"{_CONSTANTS}; no guidance, as {_DOCS} has it; sizes of one pass: defaults of LTX2Pipeline.__call__",
    two_passes=TwoPasses(
        first={"height": 1024, "width": 1536},
        second={"sigmas": list(SECOND_SIGMAS)},
        source=f"{_DOCS}, two stages with the distilled checkpoint: noise_scale is the first sigma",
    ),
)

_2_0 = without_setting(
    with_settings(_GUIDED, num_inference_steps=40, stg_scale=0.0, audio_stg_scale=0.0),
    "spatio_temporal_guidance_blocks",
)

_ROWS = (
    replace(
        _2_0,
        version="2.0",
        source=f"{_DOCS} for 40 steps; {_GUIDED.source}",
        note="stg_scale is off: the transformer of 2.0 has no perturbed attention, so that a pass would change nothing",
    ),
    replace(_DISTILLED, version="2.0-distilled"),
    _GUIDED,
    replace(_DISTILLED, version="2.3-distilled"),
    replace(with_settings(_GUIDED, crf=IMAGE_CRF_2_5), version="2.5"),
    replace(with_settings(_DISTILLED, crf=IMAGE_CRF_2_5), version="2.5-distilled"),
)

PRESETS: Mapping[str, Preset] = MappingProxyType({row.version: row for row in _ROWS})


def preset_for(version: str, checkpoint: Checkpoint) -> Preset:
    """The preset that `model.version` names, or, for `auto`, the one that the checkpoint's flags show."""
    if version == "auto":
        version = detect_version(checkpoint)
    if version not in PRESETS:
        raise ValueError(f"model.version: no preset {version!r} of LTX-2; use auto, {', '.join(PRESETS)}")
    if not version.startswith(checkpoint.generation):
        raise ValueError(f"model.version: {version}, but the checkpoint is LTX-{checkpoint.generation}; use auto")
    return PRESETS[version]


def detect_version(checkpoint: Checkpoint) -> str:
    """The version, from the transformer's flags and the noise scheduler: that of distilled weights does not shift."""
    return f"{checkpoint.generation}-distilled" if checkpoint.distilled else checkpoint.generation


def assumption(checkpoint: Checkpoint) -> str | None:
    """None, because an LTX-2 checkpoint shows its version."""
    return None
