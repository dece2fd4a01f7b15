"""Which row of the preset table a checkpoint gets."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path

import pytest

from ltx_dist.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ltx_dist.checkpoints.versions import ARCHITECTURES
from ltx_dist.inputs.config import DefaultsConfig
from ltx_dist.inputs.prompts import read_prompts
from ltx_dist.models.ltx_video.presets import PRESETS, assumption, detect_version, preset_for

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


@pytest.mark.parametrize(
    ("name", "num_layers", "version", "certain"),
    [
        ("ltxv.safetensors", 28, "0.9.5", False),
        ("a/0.9.8/ltx-video-2b-v0.9.5.safetensors", 28, "0.9.5", True),
        ("ltxv-2b-0.9.6-dev-04-25.safetensors", 28, "0.9.6-dev", True),
        ("ltxv-2b-0.9.6-distilled-04-25.safetensors", 28, "0.9.6-distilled", True),
        ("ltxv-2b-0.9.8-distilled.safetensors", 28, "0.9.8-2b-distilled", True),
        ("Lightricks/LTX-Video-0.9.7-dev@0123abc", 48, "0.9.7-13b-dev", True),
        ("Lightricks/LTX-Video-0.9.7-distilled", 48, "0.9.7-13b-distilled", True),
        ("Lightricks/LTX-Video-0.9.8-13B-distilled", 48, "0.9.8-13b-distilled", True),
        ("ltxv-13b-0.9.8.safetensors", 48, "0.9.8-13b-dev", False),
        ("thirteen.safetensors", 48, "0.9.7-13b-dev", False),
        ("my-distilled", 48, "0.9.7-13b-distilled", False),
    ],
)
def test_the_name_tells_what_the_weights_do_not(name: str, num_layers: int, version: str, certain: bool) -> None:
    checkpoint = replace(PUBLISHED, name=name, num_layers=num_layers)
    assert detect_version(checkpoint) == version
    assert (assumption(checkpoint) is None) == certain


def test_metadata_tells_distilled_weights() -> None:
    checkpoint = replace(PUBLISHED, name="x.safetensors", num_layers=48, distilled=True)
    assert detect_version(checkpoint) == "0.9.7-13b-distilled"
    assert assumption(checkpoint) == (
        "0.9.7-13b-distilled is assumed, because nothing tells it from 0.9.8-13b-distilled; "
        "to be sure, set model.version"
    )


def test_every_version_has_a_row_with_its_source_and_the_trained_number_of_tokens() -> None:
    assert set(ARCHITECTURES) == set(PRESETS) - {"demo", "generic"}
    for version in ARCHITECTURES:
        preset = PRESETS[version]
        assert (
            preset.settings["max_sequence_length"],
            preset.settings["decode_timestep"],
            preset.settings["decode_noise_scale"],
        ) == (256, 0.05, 0.025)
        assert preset.source
        assert preset.note, "each was made with something that diffusers does not have"
        assert (
            "timesteps" not in preset.settings
            or len(preset.settings["timesteps"]) == preset.settings["num_inference_steps"]
        )
        assert (preset.settings["guidance_scale"] == 1.0) == version.endswith("distilled")


def test_timesteps_are_for_the_pipeline_that_takes_them() -> None:
    given = replace(PUBLISHED, pipeline_class="LTXConditionPipeline")
    assert (
        preset_for("0.9.8-2b-distilled", given).settings["timesteps"]
        == PRESETS["0.9.8-2b-distilled"].settings["timesteps"]
    )
    assert "timesteps" not in preset_for("0.9.8-2b-distilled", PUBLISHED).settings


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
def test_the_generic_row_is_what_the_pipeline_class_defaults_to(pipeline_class: str) -> None:
    import diffusers

    defaults = inspect.signature(getattr(diffusers, pipeline_class).__call__).parameters
    preset = preset_for("generic", replace(PUBLISHED, pipeline_class=pipeline_class))
    for field in DefaultsConfig.model_fields:
        own = ("seed", "negative_prompt", "decode_timestep", "decode_noise_scale")
        if field not in own and field in preset.settings and field in defaults:
            assert preset.settings[field] == defaults[field].default, field


@pytest.mark.parametrize("version", PRESETS)
def test_every_row_makes_a_valid_request(version: str, tmp_path: Path) -> None:
    checkpoint = open_checkpoint("demo") if version == "demo" else PUBLISHED
    path = tmp_path / "p.txt"
    path.write_text("a red circle\n")
    (request,) = read_prompts(str(path), DefaultsConfig(), preset_for(version, checkpoint), checkpoint)
    assert request.num_frames == PRESETS[version].settings["num_frames"]


CONDITIONED = replace(PUBLISHED, pipeline_class="LTXConditionPipeline")


def one_request(tmp_path: Path, row: str, defaults: DefaultsConfig, checkpoint: Checkpoint = CONDITIONED):
    path = tmp_path / "p.jsonl"
    path.write_text(row + "\n")
    (request,) = read_prompts(str(path), defaults, PRESETS["0.9.8-2b-distilled"], checkpoint)
    return request


@pytest.mark.parametrize(
    ("row", "defaults", "steps", "timesteps"),
    [
        ('{"prompt": "a"}', {}, 8, PRESETS["0.9.8-2b-distilled"].settings["timesteps"]),
        ('{"prompt": "a", "num_inference_steps": 12}', {}, 12, None),
        ('{"prompt": "a"}', {"num_inference_steps": 12}, 12, None),
        ('{"prompt": "a", "timesteps": [1000, 500]}', {"num_inference_steps": 12}, 2, (1000.0, 500.0)),
        ('{"prompt": "a", "timesteps": "1000 400.5, 3"}', {}, 3, (1000.0, 400.5, 3.0)),
        ('{"prompt": "a"}', {"timesteps": [900.0]}, 1, (900.0,)),
    ],
)
def test_steps_are_a_number_or_timesteps_and_the_nearer_wins(tmp_path, row, defaults, steps, timesteps) -> None:
    request = one_request(tmp_path, row, DefaultsConfig(**defaults))
    assert (request.num_inference_steps, request.timesteps) == (steps, timesteps)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('"timesteps": [1000, 500], "num_inference_steps": 3', "2 timesteps, but num_inference_steps is 3; leave one"),
        ('"timesteps": [500, 1000]', "is not a list of decreasing numbers"),
        ('"timesteps": [1001, 500]', "is not a list of decreasing numbers"),
        ('"timesteps": [1000, 0]', "is not a list of decreasing numbers"),
        ('"timesteps": []', "is not a list of decreasing numbers"),
        ('"timesteps": "soon"', "is not a list of decreasing numbers"),
        ('"timesteps": 7', "is not a list of decreasing numbers"),
    ],
)
def test_timesteps_that_are_none_are_refused(tmp_path: Path, row: str, says: str) -> None:
    with pytest.raises(ValueError, match=f"timesteps: .*{says}"):
        one_request(tmp_path, f'{{"prompt": "a", {row}}}', DefaultsConfig())


def test_the_other_pipeline_takes_no_timesteps(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="timesteps: LTXPipeline takes no timesteps; set num_inference_steps"):
        one_request(tmp_path, '{"prompt": "a", "timesteps": [1000, 500]}', DefaultsConfig(), PUBLISHED)


def test_a_path_into_the_hubs_cache_tells_the_models_name() -> None:
    name = "/home/me/.cache/huggingface/hub/models--Lightricks--LTX-Video-0.9.7-distilled/snapshots/0123abcd"
    assert detect_version(replace(PUBLISHED, name=name, num_layers=48)) == "0.9.7-13b-distilled"
