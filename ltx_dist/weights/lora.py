"""Adds LoRAs to a component, unfused, through peft as diffusers does, with all layers of a file or none.

All of a batch's LoRAs are loaded with the component, before anything moves or streams it. Before each pass the active
ones are chosen, which moves no weights; an inactive one changes no bit. They are never fused, because subtracting them
again would not restore the weights exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from ltx_dist.checkpoints.lora_files import LoraFile, LoraLayer
from ltx_dist.pipeline.conditions import Lora


def add_loras(module: Any, files: Mapping[str, LoraFile], dtype: torch.dtype, component: str = "transformer") -> None:
    """Add the LoRAs' weights for this component, all inactive. files: by sha256. A and B are in `dtype`, whatever the
    dtype of the weights.

    Cast weights to float8 before calling this; afterwards A and B would be cast along with them.
    """
    for sha256, file in files.items():
        name, layers = adapter_name(sha256), file.of(component)
        if not layers:
            continue
        tensors = _tensors(file.path, layers, dtype)
        module.load_lora_adapter(
            tensors,
            prefix="model",
            adapter_name=name,
            network_alphas=_alphas(layers),
            low_cpu_mem_usage=True,  # otherwise A and B are first filled with random numbers
        )
        adapted = {path: layer for path, layer in module.named_modules() if name in getattr(layer, "lora_A", ())}
        assert adapted.keys() == layers.keys(), file.path
        for path, layer in adapted.items():
            # peft puts them in the dtype of the layer's weights, which may be float8.
            layer.lora_A[name].weight.data = tensors[f"model.{path}.lora_A.weight"]
            layer.lora_B[name].weight.data = tensors[f"model.{path}.lora_B.weight"]
    if loaded_loras(module):
        module.disable_lora()
        module.requires_grad_(False)


@torch.inference_mode()  # peft sets requires_grad, which weights that were moved in this mode allow in no other
def use_loras(module: Any, loras: Sequence[Lora]) -> None:
    """Activate these LoRAs and no others, summed in this order with their weights. All must have been added before."""
    names = [adapter_name(lora.sha256) for lora in loras]
    assert loaded_loras(module).issuperset(names), "loaded without LoRAs"
    if not loaded_loras(module):
        return
    if not loras:
        module.disable_lora()
        return
    module.set_adapters(names, [lora.weight for lora in loras])
    module.enable_lora()
    module.requires_grad_(False)


def loaded_loras(module: Any) -> set[str]:
    """peft's adapter names of all LoRAs that were added to the module."""
    return set(getattr(module, "peft_config", None) or ())


def adapter_name(sha256: str) -> str:
    """peft's name for a LoRA: a module's name, so without dots or a leading digit."""
    return f"lora_{sha256[:16]}"


def _tensors(path: Path, layers: Mapping[str, LoraLayer], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    with safe_open(path, framework="pt") as opened:
        return {
            f"model.{layer}.lora_{half}.weight": opened.get_tensor(key).to(dtype)
            for layer, of in layers.items()
            for half, key in (("A", of.a), ("B", of.b))
        }


def _alphas(layers: Mapping[str, LoraLayer]) -> dict[str, float] | None:
    """The alphas of all layers, or None: diffusers gives a layer without one that of another layer."""
    if all(layer.alpha is None for layer in layers.values()):
        return None
    return {f"model.{name}.alpha": layer.rank if layer.alpha is None else layer.alpha for name, layer in layers.items()}
