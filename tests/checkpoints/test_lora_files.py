"""A LoRA in any trainer's layout is read completely by its header, or refused with a key that is of no use, and why."""

from __future__ import annotations

import json
from pathlib import Path

import diffusers
import loras
import pytest
import tiny
import torch

from ltx_dist.checkpoints.checkpoint import open_checkpoint
from ltx_dist.checkpoints.lora_files import linear_layers, read_lora
from ltx_dist.checkpoints.versions import read_config

SMALL = ["transformer_blocks.0.attn1.to_q", "transformer_blocks.1.ff.net.2"]


@pytest.fixture(scope="module")
def linears(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, int]]:
    folder = tiny.save_checkpoint(tmp_path_factory.mktemp("tiny") / "model", "0.9.5", "LTXConditionPipeline")
    return linear_layers(open_checkpoint(str(folder)))


def test_the_linear_layers_are_those_of_the_transformer(linears: dict[str, tuple[int, int]]):
    in_blocks = {f"transformer_blocks.{block}.{layer}" for block in range(2) for layer in loras.BLOCK_LAYERS}
    assert set(linears) == in_blocks | set(loras.TOP_LAYERS)
    assert linears["transformer_blocks.0.ff.net.0.proj"] == (128, 32)


@pytest.mark.parametrize("layout", loras.LAYOUTS)
def test_every_layout_is_found_whole(tmp_path: Path, linears: dict[str, tuple[int, int]], layout: str):
    tensors = loras.make_lora(linears)
    file = read_lora(loras.save(tmp_path / "a.safetensors", loras.renamed(tensors, **loras.LAYOUTS[layout])), linears)
    assert set(file.layers) == set(linears)
    assert file.num_parameters == {"transformer": sum(tensor.numel() for tensor in tensors.values())}
    assert {(layer.rank, layer.alpha) for layer in file.layers.values()} == {(4, loras.LAYOUTS[layout].get("alpha"))}


def test_ranks_may_differ(tmp_path: Path, linears: dict[str, tuple[int, int]]):
    tensors = loras.make_lora(linears, SMALL[:1], rank=4) | loras.make_lora(linears, SMALL[1:], rank=9)
    file = read_lora(loras.save(tmp_path / "a.safetensors", tensors), linears)
    assert [file.layers[layer].rank for layer in SMALL] == [4, 9]


def test_alpha_is_read_from_what_diffusers_stores(tmp_path: Path, linears: dict[str, tuple[int, int]]):
    settings = {"transformer.r": 4, "transformer.lora_alpha": 8, "transformer.alpha_pattern": {SMALL[1]: 2}}
    tensors = loras.renamed(loras.make_lora(linears, SMALL), "transformer.")
    path = loras.save(tmp_path / "a.safetensors", tensors, {"lora_adapter_metadata": json.dumps(settings)})
    assert [read_lora(path, linears).layers[layer].alpha for layer in SMALL] == [8.0, 2.0]


def refused(path: Path, linears: dict[str, tuple[int, int]]) -> str:
    with pytest.raises(ValueError) as caught:
        read_lora(path, linears)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


Q = "diffusion_model.transformer_blocks.0.attn1.to_q"
EXTRA = {
    "DoRA": {f"{Q}.dora_scale": (32, 1)},
    "DoRA ": {f"{Q}.lora_magnitude_vector": (32,)},
    "LoHa": {f"{Q}.hada_w1_a": (32, 4)},
    "LoKr": {f"{Q}.lokr_w1": (4, 4)},
    "OFT": {f"{Q}.oft_blocks": (4, 4)},
    "middle layer": {f"{Q}.lora_mid.weight": (4, 4)},
    "biases": {f"{Q}.lora_B.bias": (32,)},
    "changes to whole weights": {f"{Q}.diff_b": (32,)},
    "changes to whole weights ": {"diffusion_model.transformer_blocks.0.norm.diff": (32,)},
    "text encoder": {"text_encoders.t5.layer.lora_A.weight": (4, 4)},
    "text encoder ": {"lora_te1_text_model_encoder.lora_down.weight": (4, 4)},
}


@pytest.mark.parametrize("kind", EXTRA)
def test_what_is_not_a_plain_lora_is_refused(tmp_path: Path, linears: dict[str, tuple[int, int]], kind: str):
    """The other tensors of the file are a correct LoRA, but no file may be applied only in part."""
    extra = {key: torch.zeros(shape) for key, shape in EXTRA[kind].items()}
    tensors = loras.renamed(loras.make_lora(linears, SMALL), "diffusion_model.") | extra
    message = refused(loras.save(tmp_path / "a.safetensors", tensors), linears)
    assert message.startswith(f"{next(iter(extra))}: not supported: ") and kind.strip() in message


def test_settings_that_scale_otherwise_are_refused(tmp_path: Path, linears: dict[str, tuple[int, int]]):
    for setting, name in {"use_rslora": "rsLoRA", "use_dora": "DoRA"}.items():
        metadata = {"lora_adapter_metadata": json.dumps({f"transformer.{setting}": True})}
        path = loras.save(tmp_path / "a.safetensors", loras.make_lora(linears, SMALL), metadata)
        assert refused(path, linears).startswith(f"{setting}: not supported: {name}")


def other_model(prefix: str, layer: str, out: int, into: int) -> dict[str, torch.Tensor]:
    return {
        f"{prefix}{layer}.lora_A.weight": torch.zeros(4, into),
        f"{prefix}{layer}.lora_B.weight": torch.zeros(out, 4),
    }


@pytest.mark.parametrize(
    ("tensors", "model"),
    [
        (other_model("transformer.", "transformer_blocks.0.attn1.to_q", 4096, 4096), "LTX-Video 13B"),
        (other_model("transformer.", "transformer_blocks.40.attn1.to_q", 32, 32), "LTX-Video 13B"),
        (other_model("transformer.", "transformer_blocks.0.attn1.to_q", 2048, 2048), "LTX-Video 2B"),
        (other_model("diffusion_model.", "transformer_blocks.0.audio_attn1.to_q", 32, 32), "LTX-2"),
        (other_model("diffusion_model.", "blocks.0.self_attn.q", 32, 32), "Wan"),
        (other_model("transformer.", "single_transformer_blocks.0.attn.to_q", 32, 32), "FLUX or HunyuanVideo"),
        (other_model("lora_unet_", "down_blocks_0_attentions_0_to_q", 32, 32), "Stable Diffusion"),
    ],
)
def test_a_lora_of_another_model_is_named(
    tmp_path: Path, linears: dict[str, tuple[int, int]], tensors: dict[str, torch.Tensor], model: str
):
    message = refused(loras.save(tmp_path / "a.safetensors", tensors), linears)
    assert min(tensors) in message and message.endswith(f"; the file seems to be for {model}")


def test_layers_that_the_model_does_not_have_are_refused(tmp_path: Path, linears: dict[str, tuple[int, int]]):
    tensors = loras.make_lora(linears) | other_model("", "transformer_blocks.7.attn1.to_q", 32, 32)
    message = refused(loras.save(tmp_path / "a.safetensors", tensors), linears)
    assert "transformer_blocks.7.attn1.to_q.lora_A.weight: this model has no layer" in message


def test_halves_and_doubles_are_refused(tmp_path: Path, linears: dict[str, tuple[int, int]]):
    tensors = loras.make_lora(linears, SMALL)
    half = {key: tensor for key, tensor in tensors.items() if key != f"{SMALL[0]}.lora_B.weight"}
    assert "its other half is missing" in refused(loras.save(tmp_path / "a.safetensors", half), linears)
    lone = tensors | {"transformer_blocks.1.attn1.to_q.alpha": torch.tensor(1.0)}
    assert "its other half is missing" in refused(loras.save(tmp_path / "b.safetensors", lone), linears)
    again = {key: tensor.clone() for key, tensor in tensors.items()}
    double = tensors | loras.renamed(again, "diffusion_model.")
    assert "are for the same layer" in refused(loras.save(tmp_path / "c.safetensors", double), linears)


def test_what_is_no_lora_at_all_is_refused(tmp_path: Path, linears: dict[str, tuple[int, int]]):
    weights = {"transformer_blocks.0.attn1.to_q.weight": torch.zeros(32, 32)}
    assert "not a tensor of a LoRA" in refused(loras.save(tmp_path / "a.safetensors", weights), linears)
    assert refused(loras.save(tmp_path / "b.safetensors", {}), linears) == "holds no tensors; download it again"
    (tmp_path / "c.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "a git-lfs pointer, not the file itself" in refused(tmp_path / "c.safetensors", linears)
    (tmp_path / "d.ckpt").write_bytes(b"pickle")
    assert refused(tmp_path / "d.ckpt", linears).startswith("not a .safetensors file")


def save_holes(path: Path, shapes: dict[str, list[int]]) -> Path:
    """A file of bfloat16 tensors that were never written."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * shape[0] * shape[1]
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return path


def test_all_487_layers_of_the_distilled_lora_for_13b_are_found(tmp_path: Path):
    """ltxv-13b-0.9.7-distilled-lora128 has all linear layers, the outer ones by Lightricks' names; diffusers drops 8 of
    its 974 tensors."""
    with torch.device("meta"):
        transformer = diffusers.LTXVideoTransformer3DModel(**read_config("transformer-13b"))
    linears = {
        name: tuple(module.weight.shape)
        for name, module in transformer.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    halves = {f"{layer}.lora_A.weight": [128, into] for layer, (_, into) in linears.items()}
    halves |= {f"{layer}.lora_B.weight": [out, 128] for layer, (out, _) in linears.items()}
    shapes: dict[str, list[int]] = {}
    for key, shape in halves.items():
        layer, half = key.split(".lora_")
        shapes[f"diffusion_model.{loras.TOP_LAYERS.get(layer, layer)}.lora_{half}"] = shape
    assert len(shapes) == 974 and "diffusion_model.adaln_single.linear.lora_A.weight" in shapes
    file = read_lora(save_holes(tmp_path / "distilled.safetensors", shapes), linears)
    assert set(file.layers) == set(linears) and len(file.layers) == 487
