"""Configures transformers to load the text encoder in fewer bits, with a library that depends on the device."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
import transformers

REQUIREMENTS = {"bitsandbytes": "bitsandbytes>=0.46", "torchao": "torchao>=0.18,<0.19"}
"""The requirements of the extra `quantize`."""


def quantized(quantization: str, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Arguments of `from_pretrained`. Raises ValueError naming a library that is not installed.

    A GPU uses bitsandbytes (LLM.int8, or NF4 with its scales quantised once more); a CPU uses torchao's weight-only
    layers, which compute in `dtype`. GGUF would save nothing: transformers expands it while loading.
    """
    library = "bitsandbytes" if device.type == "cuda" else "torchao"
    if find_spec(library) is None:
        raise ValueError(
            f"model.text_encoder_quantization: {quantization} needs {library}; pip install '{REQUIREMENTS[library]}'"
        )
    if device.type != "cuda":
        assert quantization == "int8", "refused before a worker is made: torchao keeps 4 bits in 8 on a CPU"
        from torchao.quantization import Int8WeightOnlyConfig  # pyright: ignore[reportMissingImports]

        return {"quantization_config": transformers.TorchAoConfig(Int8WeightOnlyConfig(version=2))}
    if quantization == "int8":
        config = transformers.BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )
    return {"quantization_config": config, "device_map": {"": device}}
