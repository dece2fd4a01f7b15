"""Full-size checkpoints that take no disk space: true configs and sizes, in files that are sparse after their headers.

To anything that reads only headers, above all planning, they look like downloaded ones.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from ltx_dist.checkpoints.tokenizer_folder import BYTE_TOKENS
from ltx_dist.checkpoints.versions import ARCHITECTURES, read_config
from ltx_dist.checkpoints.weight_files import WEIGHTS_NAME
from ltx_dist.estimates.parameters import (
    text_encoder_parameters,
    transformer_parameters,
    vae_decoder_parameters,
)

ENCODER_OF_VAE = 600_000_000
"""Roughly that of 0.9.5's VAE; rendering from text does not load it."""


def save_sparse_checkpoint(folder: Path, version: str) -> Path:
    """A folder in diffusers layout with bfloat16 weights that were never written."""
    architecture = ARCHITECTURES[version]
    configs = {
        "text_encoder": read_config(architecture.text_encoder),
        "transformer": read_config(architecture.transformer),
        "vae": read_config(architecture.vae),
    }
    parameters = {
        "text_encoder": {"shared.weight": text_encoder_parameters(configs["text_encoder"])},
        "transformer": {"proj_in.weight": transformer_parameters(configs["transformer"])},
        "vae": {"decoder.weight": vae_decoder_parameters(configs["vae"]), "encoder.weight": ENCODER_OF_VAE},
    }
    for component, config in configs.items():
        (folder / component).mkdir(parents=True)
        (folder / component / "config.json").write_text(json.dumps(config))
        _write_holes(folder / component / WEIGHTS_NAME[component], parameters[component])
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(read_config(architecture.noise_scheduler)))
    (folder / "tokenizer").mkdir()
    # A vocabulary that needs no file: the bytes, and sentinels up to the text encoder's size.
    tokens = {"tokenizer_class": "ByT5Tokenizer", "extra_ids": configs["text_encoder"]["vocab_size"] - BYTE_TOKENS}
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(tokens))
    (folder / "model_index.json").write_text(json.dumps({"_class_name": architecture.pipeline_class}))
    return folder


def _write_holes(path: Path, num_elements: dict[str, int]) -> None:
    """A safetensors file (8 bytes of length, JSON, data) of one-dimensional bfloat16 tensors."""
    header, end = {}, 0
    for name, count in num_elements.items():
        header[name] = {"dtype": "BF16", "shape": [count], "data_offsets": [end, end + 2 * count]}
        end += 2 * count
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


UPSCALER_PARAMETERS = 126_250_624
"""Number of parameters of ltxv-spatial-upscaler-0.9.8.safetensors: 505 MB of float32."""


def save_sparse_upscaler(path: Path) -> Path:
    """Its official file: the config in the metadata, two tensors with their shapes, and the rest as one."""
    shapes = {"initial_conv.weight": [512, 128, 3, 3, 3], "upsampler.0.weight": [2048, 512, 3, 3]}
    shapes["rest"] = [UPSCALER_PARAMETERS - sum(math.prod(shape) for shape in shapes.values())]
    config = {
        "_class_name": "LatentUpsampler", "in_channels": 128, "mid_channels": 512, "num_blocks_per_stage": 4, "dims": 3,
        "spatial_upsample": True, "temporal_upsample": False,
    }  # fmt: skip
    header: dict[str, object] = {"__metadata__": {"config": json.dumps(config)}}
    end = 0
    for name, shape in shapes.items():
        size = 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return path
