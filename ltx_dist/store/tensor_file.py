"""Tensors in a safetensors file that tells for which key they are good, and whether they are what was written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

Tensors = Mapping[str, torch.Tensor]


def pack(key: str, tensors: Tensors, facts: Mapping[str, str] | None = None) -> bytes:
    """The content of a file. `facts` are free text that comes back with the tensors."""
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    return save(whole, {**(facts or {}), "key": key, "sha256": _sha256(whole)})


def holds(path: Path, key: str) -> bool:
    """Whether the file is complete and of this key. Reads its header only, so that a flipped bit stays unseen."""
    return (read_facts(path) or {}).get("key") == key


def read_facts(path: Path) -> dict[str, str] | None:
    """The free text of a file and its key; None where there is no file, or one that is cut short."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError):
        return None


def read(path: Path, key: str) -> tuple[dict[str, torch.Tensor], dict[str, str]] | None:
    """The tensors, on the CPU, and the facts; None where the file is gone, of another key, or not what was written."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            # Copies: the file is mapped into memory, and whoever removes or damages it must not reach the tensors.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError):
        return None
    if facts.get("key") != key or facts.get("sha256") != _sha256(tensors):
        return None
    return tensors, facts


def _sha256(tensors: Tensors) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}\n".encode())
        # Flat first: a side of length 1 may have any stride, contiguous or not, and `view` asks for 1 in the last.
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
