"""Which row of the preset table a checkpoint gets."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path

import pytest

from ltx_dist.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ltx_dist.config import DefaultsConfig
from ltx_dist.inputs.prompts import read_prompts
from ltx_dist.presets import PRESETS, detect_version, preset_for

PUBLISHED = Checkpoint(
    name="x",
    path=Path("/nowhere"),
    pipeline_class="LTXPipeline",
    spatial_compression_ratio=32,
    temporal_compression_ratio=8,
    timestep_conditioning=True,
    latent_channels=128,
    weights={},
    num_parameters={},
)


@pytest.mark.parametrize(
    ("conditioned", "noisy", "version"),
    [(False, False, "0.9.0"), (True, True, "0.9.1"), (True, False, "0.9.5"), (False, True, "generic")],
)
def test_the_vae_shows_the_version(conditioned: bool, noisy: bool, version: str) -> None:
    checkpoint = replace(PUBLISHED, timestep_conditioning=conditioned, decoder_inject_noise=noisy)
    assert detect_version(checkpoint) == version
    assert preset_for("auto", checkpoint) == PRESETS[version]


@pytest.mark.parametrize("field", ["spatial_compression_ratio", "temporal_compression_ratio", "latent_channels"])
def test_a_vae_of_another_shape_is_generic(field: str) -> None:
    assert detect_version(replace(PUBLISHED, **{field: 16})) == "generic"


def test_the_packaged_model_is_known_by_its_place() -> None:
    checkpoint = open_checkpoint("demo")
    assert detect_version(checkpoint) == "demo"
    assert detect_version(open_checkpoint(str(checkpoint.path))) == "demo"


def test_a_named_version_wins_over_what_the_checkpoint_shows() -> None:
    assert preset_for("0.9.0", PUBLISHED) is PRESETS["0.9.0"]


def test_an_unknown_version_names_the_field_and_the_rows() -> None:
    with pytest.raises(ValueError, match=r"model\.version: no preset '1\.0'; use auto, demo, 0\.9\.0, 0\.9\.1"):
        preset_for("1.0", PUBLISHED)


@pytest.mark.parametrize("pipeline_class", ["LTXPipeline", "LTXConditionPipeline"])
def test_the_first_row_is_what_the_pipeline_class_defaults_to(pipeline_class: str) -> None:
    import diffusers

    defaults = inspect.signature(getattr(diffusers, pipeline_class).__call__).parameters
    preset = preset_for("0.9.0", replace(PUBLISHED, pipeline_class=pipeline_class))
    for field in DefaultsConfig.model_fields:
        if field not in ("seed", "negative_prompt"):
            assert getattr(preset, field) == defaults[field].default, field


@pytest.mark.parametrize("version", PRESETS)
def test_every_row_makes_a_valid_request(version: str, tmp_path: Path) -> None:
    checkpoint = open_checkpoint("demo") if version == "demo" else PUBLISHED
    path = tmp_path / "p.txt"
    path.write_text("a red circle\n")
    (request,) = read_prompts(str(path), DefaultsConfig(), PRESETS[version], checkpoint)
    assert request.num_frames == PRESETS[version].num_frames
