"""open_checkpoint and checkpoint_digest on tiny folders of JSON and safetensors, and on the packaged model."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from ltx_dist.checkpoints.checkpoint import DEMO_MODEL, open_checkpoint
from ltx_dist.checkpoints.digests import checkpoint_digest
from ltx_dist.checkpoints.weight_files import WEIGHTS_NAME, weight_files
from ltx_dist.cli import app

DOWN, DOWN_095 = "LTXVideoDownBlock3D", "LTXVideo095DownBlock3D"
TRUE3 = [True] * 3
SMALL = {"block_out_channels": [8, 16, 16, 16], "layers_per_block": [1] * 5, "down_block_types": [DOWN] * 4}
VAE_CONFIGS: dict[str, dict[str, Any]] = {
    "0.9.0": SMALL
    | {
        "decoder_block_out_channels": [8, 16, 16, 16],
        "decoder_layers_per_block": [1] * 5,
        "timestep_conditioning": False,
    },
    "0.9.1": SMALL
    | {
        "decoder_block_out_channels": [8, 16, 16],
        "decoder_layers_per_block": [1] * 4,
        "decoder_spatio_temporal_scaling": TRUE3,
        "decoder_inject_noise": [True, True, True, False],
        "upsample_residual": TRUE3,
        "upsample_factor": [2] * 3,
        "timestep_conditioning": True,
    },
    "0.9.5": {
        "block_out_channels": [8, 16, 16, 16, 32],
        "down_block_types": [DOWN_095] * 4,
        "layers_per_block": [1] * 5,
        "spatio_temporal_scaling": [True] * 4,
        "downsample_type": ["spatial", "temporal", "spatiotemporal", "spatiotemporal"],
        "decoder_block_out_channels": [8, 16, 16],
        "decoder_layers_per_block": [1] * 4,
        "decoder_spatio_temporal_scaling": TRUE3,
        "decoder_inject_noise": [False] * 4,
        "upsample_residual": TRUE3,
        "upsample_factor": [2] * 3,
        "timestep_conditioning": True,
        "spatial_compression_ratio": 32,
        "temporal_compression_ratio": 8,
    },
}
"""The published VAEs' configs with fewer channels and layers; what determines ratios and version is as published."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LTX_DIST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "digests.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A diffusers folder with a few numbers for weights."""
    path = tmp_path / "model"
    write_json(path / "model_index.json", {"_class_name": "LTXPipeline"})
    write_json(path / "scheduler" / "scheduler_config.json", {"shift": 1.0})
    write_json(path / "tokenizer" / "tokenizer_config.json", {"tokenizer_class": "ByT5Tokenizer"})
    write_json(path / "vae" / "config.json", VAE_CONFIGS["0.9.1"])
    for component, name in (
        ("text_encoder", "model"),
        ("transformer", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
    ):
        if component != "vae":
            write_json(path / component / "config.json", {"of": component})
        tensors = {"a": np.ones((2, 3), np.float32), "b": np.ones(5, np.float16)}
        save_file(tensors, path / component / f"{name}.safetensors")
    return path


def write_json(path: Path, document: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def error(name: str | Path) -> str:
    with pytest.raises(ValueError) as caught:
        open_checkpoint(str(name))
    return str(caught.value)


def shard(folder: Path, names: list[str]) -> Path:
    """Replace the transformer's weights with shards of one tensor each, and an index that names them."""
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    for number, name in enumerate(names):
        save_file({f"t{number}": np.ones((4, 4), np.float32)}, folder / "transformer" / name)
    index = folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    write_json(index, {"weight_map": {f"t{number}": name for number, name in enumerate(names)}})
    return index


def test_a_folder_is_measured_without_reading_weights(folder: Path) -> None:
    checkpoint = open_checkpoint(str(folder))
    assert (checkpoint.name, checkpoint.path, checkpoint.pipeline_class) == (str(folder), folder, "LTXPipeline")
    assert checkpoint.weights == dict.fromkeys(("text_encoder", "transformer", "vae"), 6 * 4 + 5 * 2)
    assert checkpoint.num_parameters == dict.fromkeys(("text_encoder", "transformer", "vae"), 11)
    assert checkpoint.timestep_conditioning
    assert checkpoint.decoder_inject_noise


@pytest.mark.parametrize("version", VAE_CONFIGS)
def test_ratios_are_those_of_the_real_vae(folder: Path, version: str) -> None:
    import torch
    from diffusers import AutoencoderKLLTXVideo

    write_json(folder / "vae" / "config.json", VAE_CONFIGS[version])
    with torch.device("meta"):
        vae = AutoencoderKLLTXVideo.from_config(VAE_CONFIGS[version])
    checkpoint = open_checkpoint(str(folder))
    assert checkpoint.spatial_compression_ratio == vae.spatial_compression_ratio == 32
    assert checkpoint.temporal_compression_ratio == vae.temporal_compression_ratio == 8
    assert checkpoint.latent_channels == vae.config.latent_channels
    assert checkpoint.timestep_conditioning == vae.config.timestep_conditioning


def test_the_packaged_model_opens_and_agrees_with_diffusers() -> None:
    import torch
    from diffusers import AutoencoderKLLTXVideo

    checkpoint = open_checkpoint("demo")
    with torch.device("meta"):
        vae = AutoencoderKLLTXVideo.from_config(AutoencoderKLLTXVideo.load_config(checkpoint.path / "vae"))
    assert checkpoint.spatial_compression_ratio == vae.spatial_compression_ratio
    assert checkpoint.temporal_compression_ratio == vae.temporal_compression_ratio
    in_header = sum(tensor.numel() for tensor in vae.state_dict().values())
    assert checkpoint.num_parameters["vae"] == in_header
    assert all(digest for digest in checkpoint_digest(checkpoint).values())


def test_shards_are_added_up(folder: Path) -> None:
    shard(folder, ["a-00001-of-00002.safetensors", "a-00002-of-00002.safetensors"])
    checkpoint = open_checkpoint(str(folder))
    assert checkpoint.weights["transformer"] == 2 * 16 * 4
    assert checkpoint.num_parameters["transformer"] == 32


QUANTIZED = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
REFUSED_AS_QUANTIZED = r"config\.json: stored in fewer bits \(bitsandbytes\).* original weights in bfloat16"


@pytest.mark.parametrize("component", ["text_encoder", "transformer", "vae"])
def test_quantized_weights_are_refused_in_every_component(folder: Path, component: str) -> None:
    config = folder / component / "config.json"
    write_json(config, json.loads(config.read_text()) | QUANTIZED)
    assert re.search(f"{component}/{REFUSED_AS_QUANTIZED}", error(folder))
    prompts = folder.parent / "prompts.txt"
    prompts.write_text("a red circle\n")
    for command in (["plan"], ["render", "-o", str(folder.parent / "out")]):
        result = CliRunner().invoke(app, [*command, str(prompts), "--set", f"model.checkpoint={folder}"])
        assert result.exit_code != 0
        assert f"{component}/config.json: stored in fewer bits (bitsandbytes)" in " ".join(result.output.split())


def test_a_quantized_separate_text_encoder_and_upscaler_are_refused(folder: Path, tmp_path: Path) -> None:
    separate = Path(shutil.copytree(folder, tmp_path / "separate"))
    write_json(separate / "text_encoder" / "config.json", QUANTIZED)
    with pytest.raises(ValueError, match=rf"model.text_encoder: (.|\n)*{REFUSED_AS_QUANTIZED}"):
        open_checkpoint(str(folder), text_encoder=str(separate))
    write_json(tmp_path / "upscaler" / "config.json", QUANTIZED)
    with pytest.raises(ValueError, match=rf"model.upscaler: .*{REFUSED_AS_QUANTIZED}"):
        open_checkpoint(str(folder), upscaler=str(tmp_path / "upscaler"))


def test_a_missing_shard_and_a_path_as_shard_are_refused(folder: Path) -> None:
    index = shard(folder, ["a.safetensors", "b.safetensors"])
    (folder / "transformer" / "b.safetensors").unlink()
    assert "shards are missing: b.safetensors; download them again" in error(folder)
    write_json(index, {"weight_map": {"t0": "../vae/diffusion_pytorch_model.safetensors"}})
    assert "must map tensors to .safetensors files of the same folder" in error(folder)


@pytest.mark.parametrize("component", ["text_encoder", "transformer", "vae"])
def test_of_a_single_file_and_an_index_those_the_library_loads_are_named(tmp_path: Path, component: str) -> None:
    import torch
    from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
    from safetensors.torch import load_file
    from safetensors.torch import save_file as save_tensors
    from transformers import T5EncoderModel

    classes = {"text_encoder": T5EncoderModel, "transformer": LTXVideoTransformer3DModel, "vae": AutoencoderKLLTXVideo}
    copy = Path(shutil.copytree(DEMO_MODEL / component, tmp_path / component))
    single = copy / WEIGHTS_NAME[component]
    tensors = load_file(single)
    save_tensors({key: torch.zeros_like(value) for key, value in tensors.items()}, copy / "zeros.safetensors")
    write_json(
        copy / f"{single.name}.index.json", {"metadata": {}, "weight_map": dict.fromkeys(tensors, "zeros.safetensors")}
    )
    model = classes[component].from_pretrained(copy, use_safetensors=True, local_files_only=True)
    loaded = single if any(parameter.any() for parameter in model.parameters()) else copy / "zeros.safetensors"
    assert weight_files(copy, component) == [loaded]


def test_everything_missing_is_named_at_once(tmp_path: Path) -> None:
    message = error(tmp_path)
    for missing in (
        "model_index.json: missing",
        "vae/config.json: missing",
        "scheduler/scheduler_config.json: missing",
    ):
        assert f"\n  {missing}" in message
    for missing in ("text_encoder", "transformer", "vae", "tokenizer"):
        assert f"\n  {missing}: no such folder" in message


@pytest.mark.parametrize("name", ["pytorch_model.bin", "x.pt", "x.pth", "x.ckpt", "x.pkl", "x.pt2"])
def test_pickles_are_refused_unopened(folder: Path, name: str) -> None:
    weights = folder / "text_encoder" / "model.safetensors"
    weights.rename(weights.with_name(name))
    assert f"text_encoder: safetensors only: {name} is a pickle" in error(folder)
    assert "convert" in error(folder)


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self._marker), "w")


@pytest.mark.parametrize("component", ["text_encoder", "transformer", "vae"])
@pytest.mark.parametrize("ending", ["bin", "pt", "pth", "ckpt", "pkl", "pt2", "safetensors"])
def test_code_in_weights_never_runs(folder: Path, tmp_path: Path, component: str, ending: str) -> None:
    marker = tmp_path / "marker"
    trap = pickle.dumps(Trap(marker))
    pickle.loads(trap).close()
    assert marker.exists(), "the trap works"
    marker.unlink()
    (weights,) = (folder / component).glob("*.safetensors")
    weights.unlink()
    weights.with_suffix(f".{ending}").write_bytes(trap)
    assert f"{component}" in error(folder) and not marker.exists()


def test_a_component_without_weights_is_named(folder: Path) -> None:
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    assert "vae: no weights; diffusion_pytorch_model.safetensors (or" in error(folder)


def test_a_truncated_file_is_named(folder: Path) -> None:
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "\n  vae/diffusion_pytorch_model.safetensors: not a complete safetensors file" in error(folder)


def test_another_pipeline_is_refused_with_the_supported_ones(folder: Path) -> None:
    write_json(folder / "model_index.json", {"_class_name": "LTXImageToVideoPipeline"})
    assert "'LTXImageToVideoPipeline' is not LTXPipeline, LTXConditionPipeline or LTX2Pipeline" in error(folder)


@pytest.mark.parametrize("config", [[1], {"patch_size": "4"}, {"latent_channels": 0}, {"spatio_temporal_scaling": 3}])
def test_a_vae_config_that_is_none_is_named(folder: Path, config: object) -> None:
    write_json(folder / "vae" / "config.json", config)
    assert "\n  vae/config.json: " in error(folder)


def test_json_that_is_none_is_named(folder: Path) -> None:
    (folder / "transformer" / "config.json").write_bytes(b"\xff{")
    assert "\n  transformer/config.json: not JSON" in error(folder)


def test_what_is_not_there_is_refused_with_what_could_be_given(tmp_path: Path) -> None:
    assert "ltxv.safetensors: no such file; check the path" in error(tmp_path / "ltxv.safetensors")
    assert "no such folder; give `demo`, a folder" in error(tmp_path / "no")


def test_the_digest_sees_content_and_not_place(folder: Path) -> None:
    before = checkpoint_digest(open_checkpoint(str(folder)))
    assert set(before) == {"text_encoder", "transformer", "vae", "scheduler", "tokenizer", "pipeline_class"}
    moved = folder.rename(folder.with_name("moved"))
    assert checkpoint_digest(open_checkpoint(str(moved))) == before
    for part in ("text_encoder/config.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json"):
        write_json(moved / part, {"changed": part, "tokenizer_class": "ByT5Tokenizer"})
        after = checkpoint_digest(open_checkpoint(str(moved)))
        assert {key for key in before if before[key] != after[key]} == {part.partition("/")[0]}
        before = after
    write_json(moved / "model_index.json", {"_class_name": "LTXConditionPipeline"})
    assert checkpoint_digest(open_checkpoint(str(moved)))["pipeline_class"] == "LTXConditionPipeline"


def with_large_weights(folder: Path, value: float) -> Path:
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    save_file({"a": np.full(1 << 19, value, np.float32)}, weights)
    return weights


def test_large_weights_are_hashed_once(folder: Path, cache: Path) -> None:
    weights = with_large_weights(folder, 1.0)
    checkpoint = open_checkpoint(str(folder))
    first = checkpoint_digest(checkpoint)
    entries = json.loads(cache.read_text())
    assert list(entries) == [str(weights.resolve())]
    entries[str(weights.resolve())][2] = "0" * 64
    write_json(cache, entries)
    assert checkpoint_digest(checkpoint)["transformer"] != first["transformer"], "the cached digest was not used"
    with_large_weights(folder, 2.0)
    os.utime(weights, ns=(1, 1))
    assert json.loads(cache.read_text())[str(weights.resolve())][2] == "0" * 64
    changed = checkpoint_digest(checkpoint)["transformer"]
    os.remove(cache)
    assert checkpoint_digest(checkpoint)["transformer"] == changed != first["transformer"]


@pytest.mark.parametrize("content", ["", "[1]", '{"x": 1}', "\0"])
def test_a_broken_cache_is_as_good_as_none(folder: Path, cache: Path, content: str) -> None:
    with_large_weights(folder, 1.0)
    checkpoint = open_checkpoint(str(folder))
    expected = checkpoint_digest(checkpoint)
    cache.write_text(content)
    assert checkpoint_digest(checkpoint) == expected


def test_a_cache_that_cannot_be_written_is_as_good_as_none(folder: Path, cache: Path) -> None:
    cache.parent.write_text("a file where the folder should be")
    with_large_weights(folder, 1.0)
    assert checkpoint_digest(open_checkpoint(str(folder)))["transformer"]
