"""What can be known of a checkpoint from its JSON files and safetensors headers alone: no torch, no weights read."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltx_dist.checkpoints.weight_files import WEIGHTS_NAME, measure_weights
from ltx_dist.reading import read_json

DEMO_MODEL = Path(__file__).parent.parent / "demo" / "model"
PIPELINE_CLASSES = ("LTXPipeline", "LTXConditionPipeline")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder in diffusers layout that has everything a render needs.

    name: as asked for. Compression ratios: pixels (frames) a latent pixel (frame), by diffusers' own rule.
    weights: bytes of the tensors of text_encoder, transformer and vae as stored; num_parameters: their elements.
    decoder_inject_noise: whether any block of the VAE's decoder adds noise (LTX-Video 0.9.1 does).
    """

    name: str
    path: Path
    pipeline_class: str
    spatial_compression_ratio: int
    temporal_compression_ratio: int
    timestep_conditioning: bool
    latent_channels: int
    weights: dict[str, int]
    num_parameters: dict[str, int]
    decoder_inject_noise: bool = False


def open_checkpoint(name: str) -> Checkpoint:
    """Look at `demo` (packaged) or a folder in diffusers layout.

    Raises ValueError with a line for each thing that is missing or cannot be used, and what to do.
    """
    path = DEMO_MODEL if name == "demo" else Path(name).expanduser()
    _require_folder(name, path)
    problems: list[str] = []
    pipeline_class = _attempt(problems, "", _read_pipeline_class, path / "model_index.json")
    vae = _attempt(problems, {}, _read_vae, path / "vae" / "config.json")
    sizes = {component: _attempt(problems, (0, 0), measure_weights, path, component) for component in WEIGHTS_NAME}
    for needed in ("text_encoder/config.json", "transformer/config.json", "scheduler/scheduler_config.json"):
        _attempt(problems, {}, read_json, path / needed)
    if not (path / "tokenizer").is_dir():
        problems.append("tokenizer: no such folder")
    if problems:
        lines = "\n".join(f"  {problem.replace(f'{path}{os.sep}', '')}" for problem in problems)
        raise ValueError(f"model.checkpoint: {path} is not a usable diffusers folder; complete or replace it:\n{lines}")
    return Checkpoint(
        name=name,
        path=path,
        pipeline_class=pipeline_class,
        weights={component: size[0] for component, size in sizes.items()},
        num_parameters={component: size[1] for component, size in sizes.items()},
        **vae,
    )


def _require_folder(name: str, path: Path) -> None:
    if path.is_dir():
        return
    field = f"model.checkpoint: {name}"
    if path.suffix == ".safetensors":
        raise ValueError(f"{field}: this version reads diffusers folders only, not single files; convert it")
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w.-]+)?", name):
        raise ValueError(
            f"{field}: no such folder, and this version reads diffusers folders only, not Hugging Face names; "
            f"`hf download {name.partition('@')[0]} --local-dir FOLDER`, then give FOLDER"
        )
    raise ValueError(f"{field}: no such folder; give `demo` or a folder in diffusers layout (with model_index.json)")


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


def _read_vae(path: Path) -> dict[str, Any]:
    """The VAE's fields of Checkpoint; defaults and rule of AutoencoderKLLTXVideo.__init__ in diffusers 0.42."""
    config = read_json(path)
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
        raise ValueError(f"{path}: not the config of an AutoencoderKLLTXVideo ({error})") from None
    for field, value in fields.items():
        if type(value) is not int or not 1 <= value <= 4096:
            raise ValueError(f"{path}: {field}: {value!r} is not a whole number from 1 to 4096")
    return {
        **fields,
        "timestep_conditioning": bool(config.get("timestep_conditioning", False)),
        "decoder_inject_noise": noisy,
    }
