"""Reads the headers of LoRA files for LTX-Video and LTX-2, in every layout that trainers write.

Loaders that take what they know and skip the rest apply part of a LoRA, or nothing, with only a warning.
Here every tensor of the file has its place in the model, or the file is refused with the reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ltx_dist.checkpoints.checkpoint import Checkpoint, InFile
from ltx_dist.checkpoints.lora_names import CONNECTORS, by_diffusers_name, layer_and_part, seems_for
from ltx_dist.checkpoints.official_file import TRANSFORMER_PREFIX
from ltx_dist.checkpoints.weight_files import Header, read_header, weight_files
from ltx_dist.media.sources import open_media
from ltx_dist.pipeline.request import RenderRequest

Linears = Mapping[str, tuple[int, int]]
"""(out_features, in_features) of a model's linear layers, by diffusers' names: those of the transformer without a
prefix, those of LTX-2's connectors with the prefix `connectors.`."""


@dataclass(frozen=True, slots=True)
class LoraLayer:
    """The LoRA of one linear layer. a, b: keys of its tensors in the file. alpha: None if it equals the rank."""

    a: str
    b: str
    rank: int
    alpha: float | None = None


@dataclass(frozen=True, slots=True)
class LoraFile:
    """layers: by the name of the linear layer, as in Linears. num_parameters: of all A and B, by component."""

    path: Path
    layers: Mapping[str, LoraLayer]
    num_parameters: Mapping[str, int]

    def of(self, component: str) -> dict[str, LoraLayer]:
        """The layers of a component, by their names in it."""
        if component == "transformer":
            return {name: layer for name, layer in self.layers.items() if not name.startswith(CONNECTORS)}
        prefix = f"{component}."
        return {name.removeprefix(prefix): layer for name, layer in self.layers.items() if name.startswith(prefix)}


def linear_layers(checkpoint: Checkpoint) -> dict[str, tuple[int, int]]:
    """The linear layers of the checkpoint's transformer and connectors, from the headers of their files."""
    found = _linear_layers(checkpoint, "transformer")
    if "connectors" in checkpoint.num_parameters:
        connectors = _linear_layers(checkpoint, "connectors")
        found |= {f"{CONNECTORS}{name}": shape for name, shape in connectors.items()}
    return found


def _linear_layers(checkpoint: Checkpoint, component: str) -> dict[str, tuple[int, int]]:
    source = checkpoint.source(component)
    if isinstance(source, InFile):
        shapes = {name: info.shape for name, info in read_header(source.file).tensors.items() if "vae" not in name}
    else:
        headers = [read_header(file).tensors for file in weight_files(source, component)]
        shapes = {name: info.shape for tensors in headers for name, info in tensors.items()}
    return {
        by_diffusers_name(name.removeprefix(TRANSFORMER_PREFIX).removesuffix(".weight")): (shape[0], shape[1])
        for name, shape in shapes.items()
        if name.endswith(".weight") and len(shape) == 2
    }


def read_lora(path: Path, linears: Linears, label: str | None = None) -> LoraFile:
    """The LoRA for a model with these linear layers. label: what to call the file in messages, if not its path.

    Raises ValueError naming the first key that cannot be used, and why: not a LoRA, an unsupported kind, or for another
    model.
    """
    label = label or str(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{label}: not a .safetensors file; other formats can run code when opened")
    header = read_header(path)
    found: dict[str, dict[str, str]] = {}
    by_underscores = {name.replace(".", "_"): name for name in linears}
    for key in sorted(header.tensors):
        layer, part = layer_and_part(key, by_underscores, label)
        if found.setdefault(layer, {}).setdefault(part, key) != key:
            raise ValueError(f"{label}: {key} and {found[layer][part]} are for the same layer; export the LoRA again")
    if not found:
        raise ValueError(f"{label}: holds no tensors; download it again")
    _check_layers(header, found, linears, label)
    metadata = _peft_metadata(header, label)
    layers = {layer: _layer(parts, header, path, metadata, layer) for layer, parts in found.items()}
    num_parameters = {"transformer": 0}
    for name, one in layers.items():
        component = "connectors" if name.startswith(CONNECTORS) else "transformer"
        elements = sum(header.tensors[key].num_elements for key in (one.a, one.b))
        num_parameters[component] = num_parameters.get(component, 0) + elements
    if not num_parameters["transformer"]:
        raise ValueError(f"{label}: changes the connectors alone; use one that changes the transformer, too")
    return LoraFile(path, layers, num_parameters)


def is_in_context(place: str) -> bool:
    """Whether a LoRA needs a reference video, judging by the name of its file or, in the hub's cache, of its
    repository: nothing inside the files of Lightricks' IC-LoRAs says so."""
    path = Path(place)
    names = [path.name, *(part for part in path.parts if part.startswith("models--"))]
    return any(re.search(r"ic[-_]?lora", name, re.IGNORECASE) for name in names)


def with_loras(checkpoint: Checkpoint, requests: Iterable[RenderRequest]) -> Checkpoint:
    """The checkpoint with every LoRA of the requests, each once. Their numbers of parameters are added under
    `COMPONENT.loras`."""
    loras = {lora.sha256: replace(lora, weight=1.0) for request in requests for lora in request.all_loras}
    if not loras:
        return checkpoint
    linears = linear_layers(checkpoint)
    files = [read_lora(open_media(lora.place, lora.sha256).path, linears) for lora in loras.values()]
    totals = {
        f"{component}.loras": sum(file.num_parameters.get(component, 0) for file in files)
        for component in ("transformer", "connectors")
        if component in checkpoint.num_parameters
    }
    return replace(checkpoint, loras=tuple(loras.values()), num_parameters=checkpoint.num_parameters | totals)


def read_loras(checkpoint: Checkpoint) -> dict[str, LoraFile]:
    """The files of all the checkpoint's LoRAs, by their sha256. Raises ValueError if one is missing or has changed."""
    linears = linear_layers(checkpoint) if checkpoint.loras else {}
    return {
        lora.sha256: read_lora(open_media(lora.place, lora.sha256).path, linears, lora.place)
        for lora in checkpoint.loras
    }


def _check_layers(header: Header, found: Mapping[str, Mapping[str, str]], linears: Linears, label: str) -> None:
    """Raise ValueError unless the model has every layer, in this size, and each is complete and in floating point."""
    for layer, parts in found.items():
        key = min(parts.values())
        if layer not in linears:
            reason = seems_for(header.tensors, {name: shape.shape for name, shape in header.tensors.items()})
            raise ValueError(f"{label}: {key}: this model has no layer {layer}{reason}")
        if not {"a", "b"} <= parts.keys():
            raise ValueError(f"{label}: {key}: its other half is missing; download it again")
        a, b = (header.tensors[parts[part]].shape for part in ("a", "b"))
        out, into = linears[layer]
        if len(a) != 2 or len(b) != 2 or a[0] != b[1] or (b[0], a[1]) != (out, into):
            sizes = f"{_shape(b)} and {_shape(a)} do not fit a layer of {out}x{into}"
            reason = seems_for(header.tensors, {name: shape.shape for name, shape in header.tensors.items()})
            raise ValueError(f"{label}: {key}: {sizes}{reason}")
        if not a[0]:
            raise ValueError(f"{label}: {parts['a']}: has rank 0; train or export it again")
        for one in (parts["a"], parts["b"]):
            if not header.tensors[one].dtype.startswith(("F", "BF")):
                raise ValueError(
                    f"{label}: {one}: {header.tensors[one].dtype}, not floating-point numbers; export it in bfloat16"
                )
        if (count := header.tensors[parts["alpha"]].num_elements if "alpha" in parts else 1) != 1:
            raise ValueError(f"{label}: {parts['alpha']}: {count} numbers, not one; export it again")


def _layer(parts: Mapping[str, str], header: Header, path: Path, metadata: Mapping[str, Any], layer: str) -> LoraLayer:
    rank = header.tensors[parts["a"]].shape[0]
    alpha = metadata.get("alpha_pattern", {}).get(layer, metadata.get("lora_alpha"))
    if "alpha" in parts:
        alpha = _scalar(path, parts["alpha"])
    return LoraLayer(parts["a"], parts["b"], rank, None if alpha is None else float(alpha))


def _scalar(path: Path, key: str) -> float:
    """Read with torch, as numpy has no bfloat16."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return float(file.get_tensor(key))


def _peft_metadata(header: Header, label: str) -> Mapping[str, Any]:
    """The adapter's settings that diffusers stores: alpha, if it is not the rank; empty if there are none."""
    try:
        settings = json.loads(header.metadata.get("lora_adapter_metadata", "{}"))
    except (ValueError, RecursionError):
        raise ValueError(f"{label}: its lora_adapter_metadata is not JSON; download it again") from None
    settings = settings if isinstance(settings, dict) else {}
    settings = {key.removeprefix("transformer."): value for key, value in settings.items()}
    for kind, name in {"use_dora": "DoRA", "use_rslora": "rsLoRA (another scale)"}.items():
        if settings.get(kind):
            raise ValueError(f"{label}: {kind}: not supported: {name}; train or export it as plain LoRA")
    return settings


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a number"
