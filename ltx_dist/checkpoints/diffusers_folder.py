"""Opens a folder in diffusers layout by its JSON files and safetensors headers: no torch, no weights read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.checkpoints.config_checks import read_checked_config
from ltx_dist.checkpoints.ltx2_folder import PIPELINE_CLASSES as LTX2_CLASSES
from ltx_dist.checkpoints.ltx2_folder import open_ltx2_folder
from ltx_dist.checkpoints.places import refuse_places_around
from ltx_dist.checkpoints.text_encoder_folder import (
    TextEncoder,
    examine_text_encoder,
    open_text_encoder,
    width_problem,
)
from ltx_dist.checkpoints.weight_files import attempt, count_parameters, measure_weights
from ltx_dist.strict_files import read_json

PIPELINE_CLASSES = ("LTXPipeline", "LTXConditionPipeline")

COMPONENT_CLASSES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "text_encoder": ("transformers", "T5EncoderModel"),
        "transformer": ("diffusers", "LTXVideoTransformer3DModel"),
        "vae": ("diffusers", "AutoencoderKLLTXVideo"),
        "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler"),
    }
)
"""Library and class of each component; no other is ever loaded. The tokenizer's classes are in tokenizer_folder.py."""

_CONFIG_FILES = {"transformer": "config.json", "vae": "config.json", "scheduler": "scheduler_config.json"}


def open_folder(name: str, path: Path, text_encoder: Path | None) -> Checkpoint:
    """The checkpoint in the folder `path`, with the text encoder of another folder if one is given.

    Raises ValueError with a line for each missing or unusable part.
    """
    if require_supported_model(path) in LTX2_CLASSES:
        return open_ltx2_folder(name, path, text_encoder)
    of_encoder: list[str] = []
    problems: list[str] = []
    if text_encoder is None:
        own = {part: path / part for part in ("text_encoder", "tokenizer")}
        encoder, sources = examine_text_encoder(own, problems), {}
    else:
        encoder = attempt(of_encoder, TextEncoder({}, (0, 0), {}), lambda: open_text_encoder(text_encoder))
        sources = encoder.folders
    pipeline_class = attempt(problems, "", lambda: _read_index(path / "model_index.json", text_encoder))
    configs = {part: attempt(problems, {}, lambda part=part: _read_config(path, part)) for part in _CONFIG_FILES}
    vae = attempt(problems, {}, lambda: vae_fields(configs["vae"], "vae/config.json"))
    sizes = {
        part: attempt(problems, (0, 0), lambda part=part: measure_weights(path / part, part))
        for part in ("transformer", "vae")
    }
    problems += _differences(configs["transformer"], vae)
    if mismatch := width_problem(encoder.config, configs["transformer"].get("caption_channels")):
        if text_encoder is None:
            problems.append(f"text_encoder/config.json: {mismatch}")
        else:
            of_encoder.append(f"model.text_encoder: {text_encoder}: {mismatch}")
    if problems:
        lines = "\n".join(f"  {problem.replace(f'{path}{os.sep}', '')}" for problem in problems)
        of_encoder.append(
            f"model.checkpoint: {path} is not a usable diffusers folder; complete or replace it:\n{lines}"
        )
    if of_encoder:
        raise ValueError("\n".join(of_encoder))
    sizes = {"text_encoder": encoder.size} | sizes
    return Checkpoint(
        name=name,
        path=path,
        pipeline_class=pipeline_class,
        weights={component: size[0] for component, size in sizes.items()},
        num_parameters={component: size[1] for component, size in sizes.items()},
        num_encoder_parameters=count_parameters(path / "vae", "vae", "encoder."),
        num_layers=configs["transformer"].get("num_layers", 28),
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


def read_pipeline_class(index: Path) -> str:
    """The pipeline that a model_index.json names. Raises ValueError for another model's."""
    given = read_json(index).get("_class_name")
    if given not in (*PIPELINE_CLASSES, *LTX2_CLASSES):
        raise ValueError(
            f"model.checkpoint: {index}: _class_name: {given!r} is not {', '.join(PIPELINE_CLASSES)} or LTX2Pipeline; "
            "give an LTX-Video (0.9.0 to 0.9.8) or LTX-2 (2.0, 2.3, 2.5) model"
        )
    return str(given)


def require_supported_model(path: Path) -> str | None:
    """The pipeline that the folder's model_index.json names; None if it cannot be read.

    Raises ValueError in one line for a folder of another model, or next to a model: a list of what else is missing
    would be no help.
    """
    index = path / "model_index.json"
    if not index.exists():
        refuse_places_around(path)
        return None
    try:
        read_json(index)
    except ValueError:
        return None  # reported with everything else that is wrong
    return read_pipeline_class(index)


def _read_index(index: Path, text_encoder: Path | None) -> str:
    """The pipeline's class. Raises ValueError for a component of another class, or of the checkpoint's own code."""
    given = read_json(index)
    for part, expected in COMPONENT_CLASSES.items():
        entry = given.get(part)
        if entry is None or (part == "text_encoder" and text_encoder is not None):
            continue
        if entry != [*expected]:
            raise ValueError(f"{index}: {part}: {entry!r} is not supported; only {[*expected]!r} is loaded")
    return str(given["_class_name"])


def _read_config(path: Path, part: str) -> dict[str, Any]:
    """A component's config. Raises ValueError for one of another class, that names code, or of quantized weights."""
    file = path / part / _CONFIG_FILES[part]
    config, (_, class_name) = read_checked_config(file), COMPONENT_CLASSES[part]
    if config.get("_class_name", class_name) != class_name:
        raise ValueError(
            f"{file}: _class_name: {config['_class_name']!r} is not supported; only {class_name} is loaded"
        )
    return config


def _differences(transformer: dict[str, Any], vae: dict[str, Any]) -> Iterator[str]:
    """Reasons why these two components do not fit together."""
    num_layers, in_channels = transformer.get("num_layers", 28), transformer.get("in_channels")
    if type(num_layers) is not int:
        yield f"transformer/config.json: num_layers: {num_layers!r} is not a whole number"
    if in_channels is not None and vae and vae["latent_channels"] != in_channels:
        yield (
            f"vae/config.json: latent_channels is {vae['latent_channels']}, but the transformer's in_channels is "
            f"{in_channels}; give the VAE it was trained with"
        )
