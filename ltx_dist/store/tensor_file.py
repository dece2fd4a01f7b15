"""Stores tensors in a safetensors file tagged with their key and a checksum."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from ltx_dist.store.found import MAX_TENSOR_FILE_BYTES, open_found, parse_json, size_of

LENGTH = struct.Struct("<Q")

MAX_HEADER_BYTES = 1 << 20
"""Maximum bytes of a header: ours have a handful of tensors, and a request."""

Tensors = Mapping[str, torch.Tensor]


def pack(key: str, tensors: Tensors, facts: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a file. facts: texts by name that are read back with the tensors."""
    whole: dict[str, torch.Tensor] = {}
    storages = set[int]()
    for name, tensor in tensors.items():
        whole[name] = tensor.contiguous()
        storage = whole[name].untyped_storage().data_ptr()
        if storage in storages:  # e.g. a clip's first and last image are the same; safetensors refuses shared memory
            whole[name] = whole[name].clone()
        storages.add(storage)
    return save(whole, {**(facts or {}), "key": key, "sha256": _sha256(whole)})


def holds(path: Path, key: str) -> bool:
    """Whether the file is complete and has this key. Only the header is read, so a flipped bit goes unnoticed."""
    return (read_facts(path) or {}).get("key") == key


def read_facts(path: Path) -> dict[str, str] | None:
    """The texts of a file, including its key; None if there is no file, or if it is truncated."""
    try:
        with open_found(path, MAX_TENSOR_FILE_BYTES) as file:
            return _facts(file)
    except (OSError, ValueError):
        return None


def read(path: Path, key: str) -> tuple[dict[str, torch.Tensor], dict[str, str]] | None:
    """The tensors, on the CPU, and the facts; None if the file is missing, has another key, or is damaged."""
    try:
        with open_found(path, MAX_TENSOR_FILE_BYTES) as file:
            facts = _facts(file)
            if facts.get("key") != key:
                return None
            file.seek(0)
            # Read and not mapped into memory, so that removing or damaging the file does not affect the tensors.
            tensors = load(file.read())
    except (OSError, ValueError, KeyError, SafetensorError):
        return None
    return (tensors, facts) if facts.get("sha256") == _sha256(tensors) else None


def _facts(file: BinaryIO) -> dict[str, str]:
    """The header's texts. Raises ValueError if the file is not as long as its header says, or has no header.

    Format: the header's length in 8 bytes, little-endian; the header, JSON; the tensors, at the offsets it gives.
    https://huggingface.co/docs/safetensors/index#format
    """
    size = size_of(file)
    start = file.read(LENGTH.size)
    length = LENGTH.unpack(start)[0] if len(start) == LENGTH.size else 0
    if not 2 <= length <= min(MAX_HEADER_BYTES, size):
        raise ValueError("no header")
    header = parse_json(file.read(length))
    try:
        facts = header.pop("__metadata__", {})
        end = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
        if LENGTH.size + length + end != size:
            raise ValueError("cut short")
    except (AttributeError, KeyError, TypeError, IndexError):
        raise ValueError("not a safetensors header") from None
    if not isinstance(facts, dict) or not all(isinstance(value, str) for value in facts.values()):
        raise ValueError("not the metadata of a safetensors file")
    return facts


def _sha256(tensors: Tensors) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}\n".encode())
        # Flattened first: a dimension of length 1 may have any stride, but `view` requires stride 1 in the last one.
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
