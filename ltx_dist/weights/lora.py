"""LoRAs beside a transformer's weights, unfused, through peft: diffusers' own way, with all of a file or none of it.

All of a batch's LoRAs are loaded with the transformer, before anything moves or streams it; which of them count is
chosen before each pass and moves no weights. One that is not chosen changes no bit. They are never fused: going back by
subtraction does not restore the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safetensors import safe_open

from ltx_dist.checkpoints.lora_files import LoraFile
from ltx_dist.pipeline.conditions import Lora


def add_loras(transformer: Any, files: Mapping[str, LoraFile], dtype: torch.dtype) -> None:
    """Put them into the transformer, by their sha256, all inactive. A and B are in `dtype` whatever the weights are in.

    Weights in float8 must have been cast to it before: A and B would be cast along with them.
    """
    for sha256, file in files.items():
        name, tensors = adapter_name(sha256), _tensors(file, dtype)
        transformer.load_lora_adapter(
            tensors,
            prefix="transformer",
            adapter_name=name,
            network_alphas=_alphas(file),
            low_cpu_mem_usage=True,  # else A and B are first made of random numbers
        )
        adapted = {
            path: module for path, module in transformer.named_modules() if name in getattr(module, "lora_A", ())
        }
        assert adapted.keys() == file.layers.keys(), file.path
        for path, module in adapted.items():
            # peft has them in the dtype of the weights beside them, which may be float8.
            module.lora_A[name].weight.data = tensors[f"transformer.{path}.lora_A.weight"]
            module.lora_B[name].weight.data = tensors[f"transformer.{path}.lora_B.weight"]
    if files:
        transformer.disable_lora()
        transformer.requires_grad_(False)


@torch.inference_mode()  # peft sets requires_grad, which weights that were moved in this mode allow in no other
def use_loras(transformer: Any, loras: Sequence[Lora]) -> None:
    """From here on these count, added up in this order with their weights, and no others."""
    if not getattr(transformer, "peft_config", None):
        assert not loras, "loaded without LoRAs"
        return
    if not loras:
        transformer.disable_lora()
        return
    transformer.set_adapters([adapter_name(lora.sha256) for lora in loras], [lora.weight for lora in loras])
    transformer.enable_lora()
    transformer.requires_grad_(False)


def adapter_name(sha256: str) -> str:
    """peft's name of a LoRA: a module's name, so no dots and no leading digit."""
    return f"lora_{sha256[:16]}"


def _tensors(file: LoraFile, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    with safe_open(file.path, framework="pt") as opened:
        return {
            f"transformer.{layer}.lora_{half}.weight": opened.get_tensor(key).to(dtype)
            for layer, of in file.layers.items()
            for half, key in (("A", of.a), ("B", of.b))
        }


def _alphas(file: LoraFile) -> dict[str, float] | None:
    """The alphas of all layers, or None: diffusers gives a layer without one that of another layer."""
    if all(layer.alpha is None for layer in file.layers.values()):
        return None
    return {
        f"transformer.{name}.alpha": layer.rank if layer.alpha is None else layer.alpha
        for name, layer in file.layers.items()
    }
