"""LTX-2.x is read from folders, with either transformer of 2.5. Other forms are named and refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_ltx2 as tiny

from ltx_dist.checkpoints.checkpoint import open_checkpoint
from ltx_dist.inputs.config import RenderConfig
from ltx_dist.run.batch import open_batch

sys.path.insert(0, str(Path(__file__).parents[3] / "tools"))
from make_checkpoint import write_safetensors  # noqa: E402

BLOCK = "transformer_blocks.0.ff.net.2"
OFFICIAL = {
    "2.0": (
        "patchify_proj.weight",
        "audio_patchify_proj.weight",
        f"{BLOCK}.bias",
        "caption_projection.linear_1.weight",
    ),
    "2.3": ("patchify_proj.weight", "audio_patchify_proj.weight", f"{BLOCK}.bias", "prompt_adaln_single.linear.weight"),
    "2.5": ("patchify_proj.weight", "audio_patchify_proj.weight", "prompt_adaln_single.linear.weight"),
}
"""Lightricks' own names in the files of each version, which tell the versions apart."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_checkpoint("2.5", tmp_path_factory.mktemp("tiny") / "2.5")


def write_file(path: Path, *names: str) -> Path:
    write_safetensors(path, {name: (name, (2, 2)) for name in names}, {})
    return path


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", ""], ids=["whole", "transformer alone"])
@pytest.mark.parametrize(("version", "instead"), [
    ("2.0", "Lightricks/LTX-2 on the hub"),
    ("2.3", "diffusers/LTX-2.3-Diffusers, or distilled diffusers/LTX-2.3-Distilled-Diffusers on the hub"),
    ("2.5", "Lightricks/LTX-2.5-Diffusers on the hub"),
])  # fmt: skip
def test_a_single_file_names_its_version_and_the_folder_to_give(
    tmp_path: Path, version: str, instead: str, prefix: str
):
    path = write_file(tmp_path / "ltx.safetensors", *(prefix + name for name in OFFICIAL[version]))
    with pytest.raises(ValueError) as caught:
        open_checkpoint(str(path))
    assert f"a single file of LTX-{version}" in str(caught.value) and instead in str(caught.value)
    assert "scripts/convert_ltx2_to_diffusers.py" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("model.language_model.layers.0.mlp.up_proj.weight", "the text encoder alone"),
        ("decoder.conv_in.conv.weight", "a VAE alone"),
        ("vocoder.conv_in.weight", "the sound's VAE and the vocoder alone"),
        ("diffusion_model.transformer_blocks.0.audio_attn1.to_q.lora_A.weight", "a LoRA, which holds no model"),
    ],
)
def test_parts_that_comfyui_keeps_apart_are_named(tmp_path: Path, name: str, what: str):
    with pytest.raises(ValueError, match=what):
        open_checkpoint(str(write_file(tmp_path / "part.safetensors", name)))


@pytest.mark.parametrize("part", ["text_encoder", "connectors", "transformer", "vae", "audio_vae", "vocoder"])
def test_weights_in_fewer_bits_are_refused(folder: Path, tmp_path: Path, part: str):
    copy = shutil.copytree(folder, tmp_path / "copy")
    config = json.loads((copy / part / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (copy / part / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ValueError, match=rf"{part}/config.json: stored in fewer bits \(bitsandbytes\).* weights in bfloat16"
    ):
        open_checkpoint(str(copy))


def test_scales_of_another_program_are_refused(folder: Path, tmp_path: Path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    write_file(copy / "text_encoder" / "model.safetensors", "model.language_model.layers.0.mlp.up_proj.comfy_quant")
    with pytest.raises(ValueError, match="text_encoder: quantised for another program"):
        open_checkpoint(str(copy))


def test_the_transformer_that_is_not_distilled_is_opened_from_a_folder_of_links(folder: Path, tmp_path: Path):
    """The folder is made as docs/guide.md says."""
    full = tmp_path / "full"
    full.mkdir()
    for part in folder.iterdir():
        (full / part.name).symlink_to(part)
    for part in ("transformer", "scheduler"):
        (full / part).unlink()
    (full / "transformer").symlink_to(folder / "transformer_full")
    (full / "scheduler").mkdir()
    config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    config |= {"use_dynamic_shifting": True, "shift_terminal": 0.1}
    (full / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    checkpoint = open_checkpoint(str(full))
    assert checkpoint.generation == "2.5" and not checkpoint.distilled and open_checkpoint(str(folder)).distilled


def test_rows_with_a_model_of_their_own_are_refused_in_one_line(folder: Path, tmp_path: Path):
    """A batch has one checkpoint: two can share neither weights nor plan."""
    rows: list[dict[str, Any]] = [{"prompt": "a robot"}] + [
        {"prompt": "a lighthouse", "model": "Lightricks/LTX-Video", "max_sequence_length": 16} for _ in range(3)
    ]
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError) as caught:
        open_batch(str(prompts), RenderConfig.model_validate({"model": {"checkpoint": str(folder)}}))
    assert str(caught.value).splitlines() == [
        f"{prompts}:2: model: a batch has one checkpoint, model.checkpoint; put the clips of another model into a "
        "prompt file of their own (2 more rows with a model of its own)"
    ]
