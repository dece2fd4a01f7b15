"""Derives the sizes in a diffusers config from shapes of tensors under LTX-Video's original names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]

OFFICIAL_HEADS = 32
"""No shape tells the attention heads; every published transformer has 32."""


@dataclass(frozen=True, slots=True)
class _Places:
    """Positions of resnets and resamplers in the original flat `down_blocks` and `up_blocks`; diffusers nests them."""

    resnets_down: tuple[int, ...] = (0, 3, 6, 8, 9)
    downsamplers: tuple[int, ...] = (1, 4, 7)
    resnets_up: tuple[int, ...] = (0, 2, 4, 6)
    upsamplers: tuple[int, ...] = (1, 3, 5)


_PLACES = {
    "vae-0.9.0": _Places(resnets_up=(0, 1, 3, 6, 9), upsamplers=(2, 5, 8)),
    "vae-0.9.1": _Places(),
    "vae-0.9.5": _Places(resnets_down=(0, 2, 4, 6, 8), downsamplers=(1, 3, 5, 7)),
}


def transformer_sizes(shapes: Shapes, num_attention_heads: int | None = None) -> dict[str, Any]:
    """Sizes in the config of an LTXVideoTransformer3DModel. Raises KeyError or ValueError for other shapes."""
    heads = num_attention_heads or OFFICIAL_HEADS
    width, in_channels = shapes["patchify_proj.weight"]
    if width % heads:
        raise ValueError(f"a transformer of width {width} cannot have {heads} attention heads")
    return {
        "in_channels": in_channels,
        "out_channels": shapes["proj_out.weight"][0],
        "num_attention_heads": heads,
        "attention_head_dim": width // heads,
        "cross_attention_dim": shapes["transformer_blocks.0.attn2.to_k.weight"][1],
        "num_layers": _count(shapes, "transformer_blocks"),
        "caption_channels": shapes["caption_projection.linear_1.weight"][1],
    }


def vae_sizes(shapes: Shapes, config_name: str) -> dict[str, Any]:
    """Sizes in the config of an AutoencoderKLLTXVideo with the block order of the packaged config of that name."""
    encoder, decoder = "vae.encoder.down_blocks", "vae.decoder.up_blocks"
    places = _PLACES[config_name]
    # A downsampler takes its block's channels; so does an upsampler, and only 0.9.0's first block has none.
    narrowing = [_conv_in(shapes, f"{encoder}.{place}") for place in places.downsamplers]
    widening = [_conv_in(shapes, f"{decoder}.{place}") for place in places.upsamplers]
    if config_name == "vae-0.9.0":
        widening.insert(0, shapes["vae.decoder.conv_in.conv.weight"][0])
    return {
        "latent_channels": shapes["vae.decoder.conv_in.conv.weight"][1],
        "block_out_channels": [*narrowing, shapes["vae.encoder.conv_out.conv.weight"][1]],
        "layers_per_block": [_count(shapes, f"{encoder}.{place}.res_blocks") for place in places.resnets_down],
        "decoder_block_out_channels": widening[::-1],
        "decoder_layers_per_block": [_count(shapes, f"{decoder}.{place}.res_blocks") for place in places.resnets_up][
            ::-1
        ],
    }


def _count(shapes: Shapes, prefix: str) -> int:
    """Number of members of the list of that name."""
    numbers = (re.match(rf"{re.escape(prefix)}\.(\d+)\.", key) for key in shapes)
    return len({number[1] for number in numbers if number})


def _conv_in(shapes: Shapes, prefix: str) -> int:
    """Input channels of a convolution, which some versions wrap twice."""
    wrapped = f"{prefix}.conv.conv.weight"
    return shapes[wrapped if wrapped in shapes else f"{prefix}.conv.weight"][1]
