"""A spatial latent upscaler for two passes: the packaged one, a folder in diffusers layout, an official file, or a name
on the hub."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from ltx_dist.checkpoints.checkpoint import DEMO_MODEL, Checkpoint, Fetch, InFile, Source
from ltx_dist.checkpoints.config_checks import read_checked_config
from ltx_dist.checkpoints.hub import fetch_snapshot, is_hub_name
from ltx_dist.checkpoints.weight_files import TensorInfo, read_header, weight_files
from ltx_dist.user_cache import from_home

COMPONENT = "latent_upsampler"

UPSCALER_FILES = (
    "model_index.json", "config.json", "*.safetensors", "latent_upsampler/*.json", "latent_upsampler/*.safetensors",
)  # fmt: skip
"""Files of a repository with an upscaler. Official repositories, which hold every version's files
beside one another, are refused by their name: their files are downloaded one by one."""

CONFIG_NAME = "latent_upsampler"
FIELDS = ("in_channels", "mid_channels", "num_blocks_per_stage", "dims", "spatial_upsample", "temporal_upsample")


def with_upscaler(checkpoint: Checkpoint, name: str, fetch: Fetch = fetch_snapshot) -> Checkpoint:
    """The checkpoint with this upscaler as its component `latent_upsampler`.

    Raises ValueError naming `model.upscaler` if it is not an upscaler, or not one for the checkpoint's latents.
    """
    resolved, source = _find(name, fetch)
    config, tensors = _config(source, name), _tensors(source, name)
    if not config.get("spatial_upsample", True) or config.get("temporal_upsample", False):
        raise ValueError(f"model.upscaler: {name}: makes clips longer, not larger; give the spatial upscaler")
    first = tensors.get("initial_conv.weight")
    if first is None or "upsampler.0.weight" not in tensors:
        raise ValueError(f"model.upscaler: {name}: not a latent upscaler: no initial_conv and upsampler in its weights")
    if first.shape[1] != checkpoint.latent_channels:
        raise ValueError(
            f"model.upscaler: {name}: is for latents of {first.shape[1]} channels, but the checkpoint's have "
            f"{checkpoint.latent_channels}; give the one that was published with it"
        )
    return replace(
        checkpoint,
        upscaler=resolved,
        sources={**checkpoint.sources, COMPONENT: source},
        weights=checkpoint.weights | {COMPONENT: sum(info.num_bytes for info in tensors.values())},
        num_parameters=checkpoint.num_parameters | {COMPONENT: sum(info.num_elements for info in tensors.values())},
    )


def upscaler_config(source: Source) -> dict[str, Any]:
    """Arguments of LTXLatentUpsamplerModel. The class's own defaults match no published file."""
    if isinstance(source, InFile):
        return dict(source.changes)
    config = read_checked_config(source / "config.json")
    return {field: config[field] for field in FIELDS if field in config}


def _find(name: str, fetch: Fetch) -> tuple[str, Source]:
    """The upscaler's name, with the commit if it is on the hub, and its place."""
    path = DEMO_MODEL if name == "demo" else from_home(name, "model.upscaler")
    if path.is_file() and path.suffix == ".safetensors":
        return name, InFile(path, CONFIG_NAME, _told(path))
    if not path.exists() and path.suffix != ".safetensors" and is_hub_name(name):
        if name.partition("@")[0] == "Lightricks/LTX-Video":
            raise ValueError(
                f"model.upscaler: {name}: holds the files of every version; download its "
                "ltxv-spatial-upscaler-0.9.8.safetensors with `hf download`, and give the path"
            )
        snapshot = fetch(name, UPSCALER_FILES, "model.upscaler")
        name, path = snapshot.name, snapshot.path
    for folder in (path / COMPONENT, path):
        if (folder / "config.json").is_file():
            return name, folder
    raise ValueError(
        f"model.upscaler: {name}: not a latent upscaler; give a folder with config.json and weights, an official "
        ".safetensors file such as ltxv-spatial-upscaler-0.9.8.safetensors, or owner/name on the hub"
    )


def _told(path: Path) -> dict[str, Any]:
    """The config in an official file's metadata."""
    try:
        config = json.loads(read_header(path).metadata.get("config", ""))
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict) or not {"in_channels", "mid_channels"} <= config.keys():
        raise ValueError(f"model.upscaler: {path}: its metadata has no upscaler config; give the official file of one")
    return {field: config[field] for field in FIELDS if field in config}


def _config(source: Source, name: str) -> dict[str, Any]:
    try:
        return upscaler_config(source)
    except ValueError as error:
        raise ValueError(f"model.upscaler: {name}: {error}") from None


def _tensors(source: Source, name: str) -> dict[str, TensorInfo]:
    try:
        files = [source.file] if isinstance(source, InFile) else weight_files(source, COMPONENT)
        return {key: info for file in files for key, info in read_header(file).tensors.items()}
    except ValueError as error:
        raise ValueError(f"model.upscaler: {name}: {error}") from None
