"""Refuses configs of components that would run code, or whose weights are stored in fewer bits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltx_dist.strict_files import read_json


def read_checked_config(file: Path) -> dict[str, Any]:
    """The config of a component. Raises ValueError for one that names code, or of quantized weights."""
    config = read_json(file)
    refuse_code(file, config)
    _refuse_quantized(file, config)
    return config


def refuse_code(path: Path, config: Mapping[str, Any]) -> None:
    """Raises ValueError for a config that names Python code, of the checkpoint or of the hub, to be run with it."""
    if "auto_map" in config:
        raise ValueError(
            f"{path}: auto_map names Python code of the checkpoint, which is never run; give one that needs none"
        )
    for key in ("attn_implementation", "_attn_implementation", "_attn_implementation_internal"):
        if "/" in str(config.get(key, "")):
            raise ValueError(
                f"{path}: {key}: {config[key]!r} names compiled code on the hub, which is never run; remove the key"
            )


def _refuse_quantized(file: Path, config: Mapping[str, Any]) -> None:
    """Raises ValueError where `config`, read from `file`, says that the weights beside it are stored quantized."""
    if quantized := config.get("quantization_config"):
        method = quantized.get("quant_method") if isinstance(quantized, dict) else None
        raise ValueError(
            f"{file}: stored in fewer bits ({method or 'quantization_config'}), which is not read; download the "
            "original weights in bfloat16 instead: what does not fit is streamed, and model.transformer_storage=float8 "
            "or model.text_encoder_quantization=int8 takes half the memory"
        )
