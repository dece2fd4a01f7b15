"""Converts outputs of stages to named tensors and texts, as a safetensors file holds them, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch

from ltx_dist.pipeline.payloads import (
    Conditioning,
    ConditionLatents,
    ConnectedText,
    EncodedMedia,
    Latents,
    SoundLatents,
    StageOutput,
)

KINDS = {
    kind.__name__: kind for kind in (Conditioning, ConnectedText, ConditionLatents, EncodedMedia, Latents, SoundLatents)
}
"""Outputs that can be saved. Frames and mp4s are not: frames are too large, and mp4s are published anyway."""

OUTPUT = "output"
"""Name of the text that holds, as JSON, the kind of output and the value of each field: `{"tensors": null}` stands for
a tensor named like the field, `{"tensors": N}` for N of them."""


def to_tensors(output: StageOutput) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors by name, `FIELD` or `FIELD.NUMBER`, and the text that `from_tensors` needs beside them."""
    assert type(output).__name__ in KINDS, output
    tensors: dict[str, torch.Tensor] = {}
    told: dict[str, Any] = {}
    for field in fields(output):
        value: Any = getattr(output, field.name)
        if isinstance(value, torch.Tensor):
            tensors[field.name], told[field.name] = value, {"tensors": None}
        elif isinstance(value, tuple) and all(isinstance(one, torch.Tensor) for one in value):
            tensors |= {f"{field.name}.{number}": one for number, one in enumerate(value)}
            told[field.name] = {"tensors": len(value)}
        else:
            told[field.name] = value
    return tensors, {OUTPUT: json.dumps({"kind": type(output).__name__, "fields": told})}


def from_tensors(tensors: Mapping[str, torch.Tensor], facts: Mapping[str, str]) -> StageOutput:
    """The output that `to_tensors` converted. Raises ValueError, KeyError or TypeError for anything else."""
    told = json.loads(facts[OUTPUT])
    kind, values, used = KINDS[told["kind"]], dict[str, Any](), set[str]()
    for field in fields(kind):
        match told["fields"][field.name]:
            case {"tensors": None}:
                values[field.name] = tensors[field.name]
                used.add(field.name)
            case {"tensors": int(count)}:
                names = [f"{field.name}.{number}" for number in range(count)]
                values[field.name] = tuple(tensors[name] for name in names)
                used.update(names)
            case list(items):
                values[field.name] = tuple(items)
            case value:
                values[field.name] = value
    if used != tensors.keys():
        raise ValueError(f"tensors that are not fields of {told['kind']}: {sorted(tensors.keys() - used)}")
    return kind(**values)
