"""Opens an official LTX-Video .safetensors file by its header: transformer and VAE under their original key names.

The version is recognised by the rules of `infer_diffusers_model_type` and `convert_ltx_vae_checkpoint_to_diffusers` in
diffusers 0.42 (loaders/single_file_utils.py), because diffusers renames the keys by them; sizes by tensors' shapes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from ltx_dist.checkpoints.checkpoint import Checkpoint, InFile
from ltx_dist.checkpoints.diffusers_folder import vae_fields
from ltx_dist.checkpoints.ltx2_file import other_form_of_ltx2
from ltx_dist.checkpoints.official_shapes import Shapes, transformer_sizes, vae_sizes
from ltx_dist.checkpoints.text_encoder_folder import HUB_EXAMPLE, open_text_encoder, width_problem
from ltx_dist.checkpoints.versions import ARCHITECTURES, Architecture, read_config
from ltx_dist.checkpoints.weight_files import Header, TensorInfo, read_header

TRANSFORMER_PREFIX = "model.diffusion_model."
VAE_PREFIX = "vae."
STATISTICS = "vae.per_channel_statistics."
KEPT_STATISTICS = ("mean-of-means", "std-of-means")
"""The only two of these keys that diffusers reads."""


def open_official_file(name: str, path: Path, text_encoder: Path | None) -> Checkpoint:
    """The checkpoint in the file `path`, with T5 from the folder `text_encoder`.

    Raises ValueError for a file that is not LTX-Video's, and if there is no text encoder, which no such file holds.
    """
    try:
        header = read_header(path)
    except ValueError as error:
        raise ValueError(f"model.checkpoint: {error}") from None
    _require_ltx_video(path, header)
    if text_encoder is None:
        raise ValueError(
            f"model.text_encoder: not set, and {path.name} holds no text encoder; give a folder with T5 v1.1 XXL and "
            f"its tokenizer, such as any LTX-Video folder in diffusers layout, or a name on the hub: {HUB_EXAMPLE}"
        )
    encoder = open_text_encoder(text_encoder)
    tensors = {part: _tensors_of(part, header) for part in ("transformer", "vae")}
    shapes = {part: {key: info.shape for key, info in found.items()} for part, found in tensors.items()}
    told = _metadata_config(header)
    architecture = _architecture(shapes["transformer"], shapes["vae"])
    _require_whole(path, architecture, shapes)
    sources = _sources(path, architecture, shapes, told)
    transformer_config = read_config(architecture.transformer) | sources["transformer"].changes
    if mismatch := width_problem(encoder.config, transformer_config["caption_channels"]):
        raise ValueError(f"model.text_encoder: {text_encoder}: {mismatch}")
    vae_config = read_config(architecture.vae) | sources["vae"].changes
    return Checkpoint(
        name=name,
        path=path,
        pipeline_class=architecture.pipeline_class,
        weights={"text_encoder": encoder.size[0]} | {part: _bytes(found) for part, found in tensors.items()},
        num_parameters={"text_encoder": encoder.size[1]} | {part: _elements(found) for part, found in tensors.items()},
        num_encoder_parameters=_elements(
            {key: info for key, info in tensors["vae"].items() if key.startswith("vae.encoder.")}
        ),
        num_layers=transformer_config["num_layers"],
        # Only distilled files list their steps.
        distilled=True if told.get("allowed_inference_steps") else None,
        sources={**encoder.folders, **sources},
        **vae_fields(vae_config, str(path)),
    )


def _require_ltx_video(path: Path, header: Header) -> None:
    keys = header.tensors
    bare = {key.removeprefix(TRANSFORMER_PREFIX) for key in keys}
    if found := other_form_of_ltx2(bare):
        raise ValueError(f"model.checkpoint: {path}: {found}")
    if what := _other_model(bare):
        raise ValueError(
            f"model.checkpoint: {path}: {what}; give an official LTX-Video file such as ltx-video-2b-v0.9.5.safetensors"
        )
    if "vae.encoder.conv_out.conv.weight" not in keys or "vae.decoder.conv_in.conv.weight" not in keys:
        raise ValueError(f"model.checkpoint: {path}: holds no VAE; give the official file that has both, or a folder")
    if any(info.dtype.startswith("F8") for info in keys.values()):
        raise ValueError(
            f"model.checkpoint: {path}: stored in fp8 for kernels that diffusers does not have; give the bf16 file"
        )


def _other_model(keys: set[str]) -> str | None:
    """What a foreign file is, by tensors' names without the transformer's prefix."""
    if "patchify_proj.weight" in keys:
        return None
    if any(".lora_" in key or key.startswith("lora_") for key in keys):
        return "a LoRA, which holds no model of its own"
    if any(key.startswith("encoder.block.") for key in keys):
        return "T5, the text encoder; it goes into model.text_encoder, as a folder"
    if any(key.startswith("transformer_blocks.") for key in keys):
        return "a transformer under diffusers' names, a part of a model in folders; give the folder above transformer/"
    return "not an official LTX-Video file: no patchify_proj.weight of its transformer"


def _tensors_of(component: str, header: Header) -> dict[str, TensorInfo]:
    """A component's tensors by original name; the transformer's without their prefix, which not every file has."""
    if component == "transformer":
        named = {key: info for key, info in header.tensors.items() if "vae" not in key}
        return {key.removeprefix(TRANSFORMER_PREFIX): info for key, info in named.items()}
    return {
        key: info
        for key, info in header.tensors.items()
        if key.startswith(VAE_PREFIX)
        and (not key.startswith(STATISTICS) or key.removeprefix(STATISTICS) in KEPT_STATISTICS)
    }


def _architecture(transformer: Shapes, vae: Shapes) -> Architecture:
    if "transformer_blocks.47.scale_shift_table" in transformer:
        return ARCHITECTURES["0.9.7-13b-dev"]
    if vae["vae.encoder.conv_out.conv.weight"][1] == 2048:
        return ARCHITECTURES["0.9.5"]
    timed = "vae.decoder.last_time_embedder.timestep_embedder.linear_1.weight" in vae
    return ARCHITECTURES["0.9.1" if timed else "0.9.0"]


def _sources(
    path: Path, architecture: Architecture, shapes: Mapping[str, Shapes], told: dict[str, Any]
) -> dict[str, InFile]:
    of_transformer = told.get("transformer")
    heads = of_transformer.get("num_attention_heads") if isinstance(of_transformer, dict) else None
    try:
        found = {
            "transformer": (architecture.transformer, transformer_sizes(shapes["transformer"], heads)),
            "vae": (architecture.vae, vae_sizes(shapes["vae"], architecture.vae)),
            "scheduler": (architecture.noise_scheduler, {}),
        }
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise ValueError(
            f"model.checkpoint: {path}: not a complete LTX-Video file ({error}); download it again"
        ) from None
    return {
        component: InFile(path, config_name, _differing(sizes, read_config(config_name)))
        for component, (config_name, sizes) in found.items()
    }


def _require_whole(path: Path, architecture: Architecture, shapes: Mapping[str, Shapes]) -> None:
    """Raises ValueError if the file lacks tensors of its architecture."""
    missing = missing_tensors("transformer", shapes["transformer"]) + missing_tensors(architecture.vae, shapes["vae"])
    if missing:
        raise ValueError(
            f"model.checkpoint: {path}: not a complete LTX-Video file: {len(missing)} missing tensors, such as "
            f"{missing[0]}; download it again"
        )


def _differing(sizes: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in sizes.items() if config[key] != value}


def _metadata_config(header: Header) -> dict[str, Any]:
    """The `config` that newer official files carry; empty if it is missing or cannot be read."""
    try:
        config = json.loads(header.metadata.get("config", "{}"))
    except (ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def _bytes(tensors: dict[str, TensorInfo]) -> int:
    return sum(info.num_bytes for info in tensors.values())


def _elements(tensors: dict[str, TensorInfo]) -> int:
    return sum(info.num_elements for info in tensors.values())


def missing_tensors(part: str, names: Collection[str]) -> list[str]:
    """Tensors that a file lacks, by name, among those that tools/make_official_names.py read from diffusers' classes.

    part: `transformer`, whose names have no prefix here, or the config of the VAE. Of a repeated block, as many are
    expected as the file has.
    """
    given = set(names)
    return [
        name for pattern in read_config("official_names")[part] for name in _expand(pattern, given) if name not in given
    ]


def _expand(pattern: str, names: set[str]) -> Iterator[str]:
    prefix, numbered, rest = pattern.partition("#")
    if not numbered:
        yield pattern
        return
    begins = re.compile(rf"{re.escape(prefix)}(\d+)\.")
    found = [int(match[1]) for name in names if (match := begins.match(name))]
    yield from (f"{prefix}{number}{rest}" for number in range(max(found, default=-1) + 1))
