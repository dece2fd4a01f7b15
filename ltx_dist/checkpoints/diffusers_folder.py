"""A folder in diffusers layout, from its JSON files and safetensors headers alone: no torch, no weights read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.checkpoints.text_encoder_folder import locate_text_encoder
from ltx_dist.checkpoints.weight_files import WEIGHTS_NAME, count_parameters, measure_weights
from ltx_dist.strict_files import read_json

PIPELINE_CLASSES = ("LTXPipeline", "LTXConditionPipeline")


def open_folder(name: str, path: Path, text_encoder: Path | None) -> Checkpoint:
    """Raises ValueError with a line for each thing that is missing or cannot be used."""
    sources = locate_text_encoder(text_encoder) if text_encoder is not None else {}
    folders = {part: sources.get(part, path / part) for part in (*WEIGHTS_NAME, "tokenizer", "scheduler")}
    problems: list[str] = []
    pipeline_class = _attempt(problems, "", _read_pipeline_class, path / "model_index.json")
    vae = _attempt(problems, {}, lambda: vae_fields(read_json(path / "vae" / "config.json"), "vae/config.json"))
    sizes = {part: _attempt(problems, (0, 0), measure_weights, folders[part], part) for part in WEIGHTS_NAME}
    transformer = _attempt(problems, {}, read_json, folders["transformer"] / "config.json")
    _attempt(problems, {}, read_json, folders["text_encoder"] / "config.json")
    _attempt(problems, {}, read_json, folders["scheduler"] / "scheduler_config.json")
    if not folders["tokenizer"].is_dir():
        problems.append("tokenizer: no such folder")
    num_layers = transformer.get("num_layers", 28)
    if type(num_layers) is not int:
        problems.append(f"transformer/config.json: num_layers: {num_layers!r} is not a whole number")
    if problems:
        lines = "\n".join(f"  {problem.replace(f'{path}{os.sep}', '')}" for problem in problems)
        raise ValueError(f"model.checkpoint: {path} is not a usable diffusers folder; complete or replace it:\n{lines}")
    return Checkpoint(
        name=name,
        path=path,
        pipeline_class=pipeline_class,
        weights={component: size[0] for component, size in sizes.items()},
        num_parameters={component: size[1] for component, size in sizes.items()},
        num_encoder_parameters=count_parameters(folders["vae"], "vae", "encoder."),
        num_layers=num_layers,
        sources=dict(sources),
        **vae,
    )


def vae_fields(config: dict[str, Any], label: str) -> dict[str, Any]:
    """The VAE's fields of Checkpoint; defaults and rule of AutoencoderKLLTXVideo.__init__ in diffusers 0.42."""
    try:
        blocks = 2 ** sum(bool(scaled) for scaled in config.get("spatio_temporal_scaling", (True, True, True, False)))
        spatial, temporal = config.get("spatial_compression_ratio"), config.get("temporal_compression_ratio")
        fields = {
            "spatial_compression_ratio": config.get("patch_size", 4) * blocks if spatial is None else spatial,
            "temporal_compression_ratio": config.get("patch_size_t", 1) * blocks if temporal is None else temporal,
            "latent_channels": config.get("latent_channels", 128),
        }
        noisy = any(config.get("decoder_inject_noise", ()))
    except TypeError as error:
        raise ValueError(f"{label}: not the config of an AutoencoderKLLTXVideo ({error})") from None
    for field, value in fields.items():
        if type(value) is not int or not 1 <= value <= 4096:
            raise ValueError(f"{label}: {field}: {value!r} is not a whole number from 1 to 4096")
    return {
        **fields,
        "timestep_conditioning": bool(config.get("timestep_conditioning", False)),
        "decoder_inject_noise": noisy,
    }


def _attempt(problems: list[str], otherwise: Any, read: Callable[..., Any], *arguments: Any) -> Any:
    """`read(*arguments)`, or note its ValueError and go on, so that everything wrong is said at once."""
    try:
        return read(*arguments)
    except ValueError as error:
        problems.append(str(error))
        return otherwise


def _read_pipeline_class(index: Path) -> str:
    given = read_json(index).get("_class_name")
    if given not in PIPELINE_CLASSES:
        raise ValueError(f"{index}: _class_name: {given!r} is not {' or '.join(PIPELINE_CLASSES)}")
    return str(given)
