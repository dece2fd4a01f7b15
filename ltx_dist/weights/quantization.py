"""Loads text encoders, quantised if asked; the library depends on the bits, the device and the model."""

from __future__ import annotations

from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open

from ltx_dist.checkpoints.weight_files import weight_files
from ltx_dist.weights.loading import complete

REQUIREMENTS = {"bitsandbytes": "bitsandbytes>=0.46", "torchao": "torchao>=0.18,<0.19"}
"""The requirements of the extra `quantize`."""


def load_encoder(
    model_class: Any,
    folder: Path,
    dtype: torch.dtype,
    quantization: str,
    device: torch.device,
    *,
    fits_float16: bool,
) -> Any:
    """A text encoder of transformers, on the CPU; in `int8` or `int4` its linear layers are quantised on the device as
    they are read, one by one. Embeddings, norms and tied heads keep `dtype`.

    To quantise, files are read, not mapped: pages of a mapped file would stay in memory until the last layer is done,
    for T5 9.5 GB beside the 4.9 GB of the result. fits_float16: whether inputs and outputs of the quantised layers are
    within float16's range. Raises ValueError naming the library that is not installed, or if weights and config differ.
    """
    if quantization == "none":
        return complete(model_class, folder, dtype)
    how = quantized(quantization, dtype, device, fits_float16)
    config = model_class.config_class.from_pretrained(folder, local_files_only=True)
    with ExitStack() as files:
        tensors = {
            name: file.get_slice(name)
            for path in weight_files(folder, "text_encoder")
            for file in [files.enter_context(safe_open(path, framework="pt", backend="pread"))]
            for name in file.keys()  # noqa: SIM118 (not a dict)
        }
        return complete(model_class, None, dtype, config=config, state_dict=tensors, **how)


def quantized(quantization: str, dtype: torch.dtype, device: torch.device, fits_float16: bool) -> dict[str, Any]:
    """Arguments of `from_pretrained`. Raises ValueError naming the library that is not installed.

    On a GPU, int4 is bitsandbytes' NF4 with its scales quantised once more, and int8 its LLM.int8, which computes in
    float16 whatever `dtype` is. If activations exceed float16, and on a CPU, int8 is torchao's, which quantises only
    weights and computes in `dtype`. GGUF would save nothing: transformers expands it as it loads.
    """
    on_gpu = device.type == "cuda"
    library = "bitsandbytes" if on_gpu and (quantization == "int4" or fits_float16) else "torchao"
    if find_spec(library) is None:
        raise ValueError(
            f"model.text_encoder_quantization: {quantization} needs {library}; pip install '{REQUIREMENTS[library]}'"
        )
    placed = {"device_map": {"": device}} if on_gpu else {}
    if library == "torchao":
        assert quantization == "int8", "refused before a worker is made: torchao keeps 4 bits in 8 on a CPU"
        from torchao.quantization import Int8WeightOnlyConfig  # pyright: ignore[reportMissingImports]

        return {"quantization_config": transformers.TorchAoConfig(Int8WeightOnlyConfig(version=2)), **placed}
    if quantization == "int8":
        config = transformers.BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )
    return {"quantization_config": config, **placed}
