"""LoRA files for the tiny transformer, in the layouts of the trainers."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

BLOCK_LAYERS = (
    "attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "attn2.to_q", "attn2.to_k", "attn2.to_v",
    "attn2.to_out.0", "ff.net.0.proj", "ff.net.2",
)  # fmt: skip
TOP_LAYERS = {
    "proj_in": "patchify_proj", "proj_out": "proj_out", "time_embed.linear": "adaln_single.linear",
    "time_embed.emb.timestep_embedder.linear_1": "adaln_single.emb.timestep_embedder.linear_1",
    "time_embed.emb.timestep_embedder.linear_2": "adaln_single.emb.timestep_embedder.linear_2",
    "caption_projection.linear_1": "caption_projection.linear_1",
    "caption_projection.linear_2": "caption_projection.linear_2",
}  # fmt: skip
"""All linear layers of LTX-Video outside the blocks, and Lightricks' names for them."""

TOP_LAYERS_OF_LTX2 = {
    "audio_proj_in": "audio_patchify_proj",
    "audio_time_embed.linear": "audio_adaln_single.linear",
    "av_cross_attn_video_scale_shift.linear": "av_ca_video_scale_shift_adaln_single.linear",
    "av_cross_attn_audio_v2a_gate.linear": "av_ca_v2a_gate_adaln_single.linear",
    "prompt_adaln.linear": "prompt_adaln_single.linear",
    "audio_prompt_adaln.linear": "audio_prompt_adaln_single.linear",
}
"""Some further ones that LTX-2 has."""

LAYOUTS = {
    "official trainer, diffusers": {"prefix": "transformer."},
    "official trainer for ComfyUI": {"prefix": "diffusion_model."},
    "all layers under official names": {"prefix": "diffusion_model.", "official": True},
    "ComfyUI with down, up and alpha": {
        "prefix": "diffusion_model.", "a": "lora_down.weight", "b": "lora_up.weight", "alpha": 2.0,
    },
    "diffusers with alpha": {"prefix": "transformer.", "alpha": 2.0},
    "older diffusers": {"prefix": "transformer.", "a": "lora.down.weight", "b": "lora.up.weight"},
    "no prefix": {"prefix": ""},
    "peft": {"prefix": "base_model.model."},
    "peft with an adapter's name": {
        "prefix": "base_model.model.", "a": "lora_A.default.weight", "b": "lora_B.default.weight",
    },
    "a whole model's prefix": {"prefix": "model.diffusion_model."},
    "kohya": {
        "prefix": "lora_unet_", "a": "lora_down.weight", "b": "lora_up.weight", "alpha": 4.0, "underscores": True,
    },
    "kohya under official names": {
        "prefix": "lora_unet_", "a": "lora_down.weight", "b": "lora_up.weight", "underscores": True, "official": True,
    },
}  # fmt: skip
"""Arguments of `renamed`, by the program that writes this layout."""


def make_lora(
    linears: dict[str, tuple[int, int]], layers: list[str] | None = None, rank: int = 4, seed: int = 0
) -> dict[str, torch.Tensor]:
    """A and B of each layer as `LAYER.lora_A.weight`, under diffusers' names; of all layers if none are given."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for layer in layers or sorted(linears):
        out, into = linears[layer]
        tensors[f"{layer}.lora_A.weight"] = torch.randn(rank, into, generator=generator) * 0.2
        tensors[f"{layer}.lora_B.weight"] = torch.randn(out, rank, generator=generator) * 0.2
    return tensors


def renamed(
    tensors: dict[str, torch.Tensor], prefix: str, a: str = "lora_A.weight", b: str = "lora_B.weight",
    underscores: bool = False, official: bool = False, alpha: float | None = None,
) -> dict[str, torch.Tensor]:  # fmt: skip
    """The same LoRA in another layout."""
    found: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        layer, half = key.split(".lora_")
        name = (TOP_LAYERS | TOP_LAYERS_OF_LTX2).get(layer, layer) if official else layer
        name = prefix + (name.replace(".", "_") if underscores else name)
        found[f"{name}.{a if half.startswith('A') else b}"] = tensor
        if alpha is not None:
            found[f"{name}.alpha"] = torch.tensor(alpha)
    return found


def save(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> Path:
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, metadata)
    return path
