"""Write a checkpoint of any LTX-Video version with random weights: the true shapes and names, without a download.

    python tools/make_checkpoint.py 0.9.5 out/ltxv --scale tiny --format single_file

A `folder` has diffusers' layout. A `single_file` is a .safetensors file like the official ones, with the original key
names, and has text_encoder/ and tokenizer/ beside it. Both forms of a version hold the same weights. Tensors are made
and written one by one, so that memory never holds more than the largest of them. The tokenizer has as many tokens as
the text encoder has embeddings: at tiny scale it is ByT5's, which needs no vocabulary; at full scale it is a T5
tokenizer whose tokens are single letters.
"""

from __future__ import annotations

import argparse
import json
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
import transformers
from diffusers.loaders import single_file_utils

from ltx_dist.checkpoints.versions import ARCHITECTURES, read_config
from ltx_dist.checkpoints.weight_files import WEIGHTS_NAME

Scale = Literal["full", "tiny"]
Format = Literal["folder", "single_file"]
Shapes = dict[str, tuple[int, ...]]

# Tiny ones keep what tells them apart: a 13B by its 32 heads and 48 layers, and the VAE of 0.9.5, for diffusers, by its
# 2048 channels.
_TINY_TRANSFORMER = {"attention_head_dim": 2, "cross_attention_dim": 64, "caption_channels": 32}
_TINY_TIMED = {"decoder_block_out_channels": [8, 16, 32], "decoder_layers_per_block": [1, 2, 1, 1]}
TINY: dict[str, dict[str, Any]] = {
    "transformer-2b": _TINY_TRANSFORMER | {"num_layers": 2},
    "transformer-13b": _TINY_TRANSFORMER,
    "vae-0.9.0": {
        "block_out_channels": [8, 16, 32, 32],
        "layers_per_block": [1, 2, 1, 1, 1],
        "decoder_block_out_channels": [8, 16, 32, 32],
        "decoder_layers_per_block": [1, 2, 1, 1, 1],
    },
    "vae-0.9.1": _TINY_TIMED | {"block_out_channels": [8, 16, 32, 32], "layers_per_block": [1, 2, 1, 1, 1]},
    "vae-0.9.5": _TINY_TIMED | {"block_out_channels": [8, 16, 32, 256, 2048], "layers_per_block": [1, 2, 1, 0, 0]},
    "text_encoder": {"vocab_size": 384, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4},
}
"""How the configs of a tiny checkpoint differ."""

OFFICIAL_FILES = {
    "0.9.0": "ltx-video-2b-v0.9",
    "0.9.1": "ltx-video-2b-v0.9.1",
    "0.9.5": "ltx-video-2b-v0.9.5",
    "0.9.6-dev": "ltxv-2b-0.9.6-dev-04-25",
    "0.9.6-distilled": "ltxv-2b-0.9.6-distilled-04-25",
    "0.9.7-13b-dev": "ltxv-13b-0.9.7-dev",
    "0.9.7-13b-distilled": "ltxv-13b-0.9.7-distilled",
    "0.9.8-13b-dev": "ltxv-13b-0.9.8-dev",
    "0.9.8-13b-distilled": "ltxv-13b-0.9.8-distilled",
    "0.9.8-2b-distilled": "ltxv-2b-0.9.8-distilled",
}

_TRANSFORMER_RENAMES = (
    ("norm_q", "q_norm"),
    ("norm_k", "k_norm"),
    ("time_embed", "adaln_single"),
    ("proj_in", "patchify_proj"),
)
_COMMON_VAE_RENAMES = (
    (".resnets.", ".res_blocks."), ("conv_shortcut.conv.", "conv_shortcut."), (".norm3.", ".norm3.norm."),
    ("decoder.time_embedder", "decoder.last_time_embedder"),
    ("decoder.scale_shift_table", "decoder.last_scale_shift_table"),
    ("latents_mean", "per_channel_statistics.mean-of-means"), ("latents_std", "per_channel_statistics.std-of-means"),
)  # fmt: skip
_ENCODER_PLACES = {
    "vae-0.9.5": ("0", "0.downsamplers.0", "1", "1.downsamplers.0", "2", "2.downsamplers.0", "3", "3.downsamplers.0"),
}
_OTHER_ENCODER_PLACES = (
    "0", "0.downsamplers.0", "0.conv_out", "1", "1.downsamplers.0", "1.conv_out", "2", "2.downsamplers.0", "3",
)  # fmt: skip
_DECODER_PLACES = {
    "vae-0.9.0": ("0", "1.upsamplers.0", "1", "2.conv_in", "2.upsamplers.0", "2", "3.conv_in", "3.upsamplers.0", "3"),
}
_OTHER_DECODER_PLACES = ("0.upsamplers.0", "0", "1.upsamplers.0", "1", "2.upsamplers.0", "2")
"""diffusers' blocks in the order of the original flat lists, without the middle block."""


def make_checkpoint(version: str, out: Path, scale: Scale, form: Format) -> Path:
    """Write a checkpoint, and return what `model.checkpoint` can be set to: `out` itself, or the file in it."""
    architecture = ARCHITECTURES[version]
    models = {
        component: sized_config(name, scale)
        for component, name in (
            ("text_encoder", architecture.text_encoder),
            ("transformer", architecture.transformer),
            ("vae", architecture.vae),
        )
    }
    write_component(out / "text_encoder", "text_encoder", models["text_encoder"])
    tokenizer = sized_tokenizer(models["text_encoder"]["vocab_size"])
    tokenizer.save_pretrained(out / "tokenizer")
    if form == "single_file":
        path = out / f"{OFFICIAL_FILES[version]}.safetensors"
        write_single_file(path, version, models)
        return path
    for component in ("transformer", "vae"):
        write_component(out / component, component, models[component])
    _write_json(out / "scheduler" / "scheduler_config.json", read_config(architecture.noise_scheduler))
    _write_json(
        out / "model_index.json",
        {
            "_class_name": architecture.pipeline_class,
            "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
            "text_encoder": ["transformers", "T5EncoderModel"],
            "tokenizer": ["transformers", type(tokenizer).__name__],
            "transformer": ["diffusers", "LTXVideoTransformer3DModel"],
            "vae": ["diffusers", "AutoencoderKLLTXVideo"],
        },
    )
    return out


def sized_config(name: str, scale: Scale) -> dict[str, Any]:
    return read_config(name) | (TINY[name] if scale == "tiny" else {})


def sized_tokenizer(vocab_size: int) -> Any:
    """A tokenizer with one token per ASCII character, and unused tokens up to `vocab_size`."""
    bytes_alone = transformers.ByT5Tokenizer()
    if len(bytes_alone) == vocab_size:
        return bytes_alone
    sentinels = [f"<extra_id_{number}>" for number in range(99, -1, -1)]
    pieces = ["<pad>", "</s>", "<unk>", "\u2581", *map(chr, range(ord("!"), ord("~") + 1))]
    pieces += [f"<unused_{number}>" for number in range(vocab_size - len(sentinels) - len(pieces))]
    return transformers.T5Tokenizer(vocab=[(piece, -2.0 if piece[0] != "<" else 0.0) for piece in pieces + sentinels])


def write_component(folder: Path, component: str, config: dict[str, Any]) -> None:
    """Write one component in diffusers' layout."""
    _write_json(folder / "config.json", config)
    tensors = {f"{component}:{name}": (name, shape) for name, shape in shapes_of(config).items()}
    write_safetensors(folder / WEIGHTS_NAME[component], tensors, {"format": "pt"})


def write_single_file(path: Path, version: str, models: dict[str, dict[str, Any]]) -> None:
    """Write transformer and VAE under the original names; from 0.9.5 on with the metadata that official files have."""
    renames: dict[str, Callable[[str], str]] = {
        "transformer": official_transformer_name,
        "vae": lambda name: official_vae_name(name, ARCHITECTURES[version].vae),
    }
    tensors = {
        f"{component}:{name}": (rename(name), shape)
        for component, rename in renames.items()
        for name, shape in shapes_of(models[component]).items()
    }
    _require_diffusers_names(tensors)
    told: dict[str, Any] = {"transformer": models["transformer"]}
    if "distilled" in version:
        told["allowed_inference_steps"] = [1.0, 0.9937, 0.9875, 0.9812, 0.975, 0.9094, 0.725, 0.4219]
    with_metadata = ARCHITECTURES[version].vae == "vae-0.9.5"
    write_safetensors(path, tensors, {"config": json.dumps(told)} if with_metadata else {})


def shapes_of(config: dict[str, Any]) -> Shapes:
    """The shapes of the tensors that the real class stores, built on the meta device, which takes no memory."""
    with torch.device("meta"):
        if "model_type" in config:
            model: Any = transformers.T5EncoderModel(transformers.T5Config(**config))
        else:
            model = getattr(diffusers, config["_class_name"]).from_config(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    shapes.pop("encoder.embed_tokens.weight", None)  # the same tensor as shared.weight, stored once
    return shapes


def official_transformer_name(name: str) -> str:
    for ours, original in _TRANSFORMER_RENAMES:
        name = name.replace(ours, original)
    return f"model.diffusion_model.{name}"


def official_vae_name(name: str, vae: str) -> str:
    down = (*_ENCODER_PLACES.get(vae, _OTHER_ENCODER_PLACES), "mid_block")
    up = ("mid_block", *_DECODER_PLACES.get(vae, _OTHER_DECODER_PLACES))
    for half, blocks, places in (("encoder", "down_blocks", down), ("decoder", "up_blocks", up)):
        prefixes = {
            f"{half}.{place}." if place == "mid_block" else f"{half}.{blocks}.{place}.": f"{half}.{blocks}.{number}."
            for number, place in enumerate(places)
        }
        # The longest prefix is the right one: `0.downsamplers.0` before `0`.
        prefix = max((prefix for prefix in prefixes if name.startswith(prefix)), key=len, default="")
        if prefix:
            name = prefixes[prefix] + name.removeprefix(prefix)
            break
    for ours, original in _COMMON_VAE_RENAMES:
        name = name.replace(ours, original)
    return f"vae.{name}"


def _require_diffusers_names(tensors: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    """Assert that diffusers' own conversion leads back from each name, since it is what reads the file."""
    stored: dict[str, Any] = {name: torch.empty(shape, device="meta") for name, shape in tensors.values()}
    back = {f"vae:{name}" for name in single_file_utils.convert_ltx_vae_checkpoint_to_diffusers(stored)}
    back |= {
        f"transformer:{name}" for name in single_file_utils.convert_ltx_transformer_checkpoint_to_diffusers(stored)
    }
    assert back == set(tensors), sorted(back ^ set(tensors))[:10]


def write_safetensors(
    path: Path,
    tensors: dict[str, tuple[str, tuple[int, ...]]],
    metadata: dict[str, str],
    values: Callable[[str, tuple[int, ...]], torch.Tensor] | None = None,
) -> None:
    """Write a file of bfloat16 tensors. tensors: the name and shape of each by its identity, which decides its values.

    values: makes a tensor from its identity and shape; `random_tensor` if None.
    """
    values = values or random_tensor
    header, _ = safetensors_header(tensors, metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(header)
        for identity, (_, shape) in tensors.items():
            file.write(values(identity, shape).contiguous().view(-1).view(torch.uint8).numpy().data)


def safetensors_header(tensors: dict[str, tuple[str, tuple[int, ...]]], metadata: dict[str, str]) -> tuple[bytes, int]:
    """The header of a file of these tensors in bfloat16, and the number of bytes of data that follow."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, shape in tensors.values():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, end


def random_tensor(identity: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A bfloat16 tensor with values as large as an initialised layer's, so that clips are noise and not black."""
    generator = torch.Generator().manual_seed(zlib.crc32(identity.encode()))
    if identity.endswith("timestep_scale_multiplier"):
        return torch.full(shape, 1000.0, dtype=torch.bfloat16)
    if identity.endswith("latents_std"):
        return torch.rand(shape, generator=generator).add(0.5).to(torch.bfloat16)
    if len(shape) == 1:
        centre = 1.0 if identity.endswith("weight") else 0.0
        return torch.randn(shape, generator=generator).mul(0.1).add(centre).to(torch.bfloat16)
    deviation = 0.5 if "per_channel_scale" in identity else 1 / math.sqrt(math.prod(shape[1:]))
    return torch.randn(shape, generator=generator, dtype=torch.bfloat16).mul_(deviation)


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("version", choices=ARCHITECTURES)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scale", choices=("full", "tiny"), default="tiny")
    parser.add_argument("--format", choices=("folder", "single_file"), default="folder")
    arguments = parser.parse_args()
    print(make_checkpoint(arguments.version, arguments.out, arguments.scale, arguments.format))


if __name__ == "__main__":
    main()
