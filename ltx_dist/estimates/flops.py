"""Floating-point operations of each stage of a clip, by formula from the configs: no weights, no torch.

A multiplication with its addition is two. Norms, activations and softmax are left out: under 1 % at full size.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ltx_dist.estimates.parameters import Config, conv_parameters


def denoise_flops(config: Config, tokens: int, text_tokens: int, passes: int) -> float:
    """Operations of `passes` calls of an LTXVideoTransformer3DModel; a step with guidance is two.

    A block of width d on N tokens has 28 N d^2 operations in linear layers and 4 N^2 d in self-attention; those for the
    text's keys and values, and for cross-attention to them, come on top.
    """
    width = config["num_attention_heads"] * config["attention_head_dim"]
    text_width = config["cross_attention_dim"]
    block = (
        28 * tokens * width**2
        + 4 * tokens**2 * width
        + 4 * text_tokens * text_width * width
        + 4 * tokens * text_tokens * width
    )
    around = 2 * tokens * width * (config["in_channels"] + config["out_channels"])
    caption = 2 * text_tokens * width * (config["caption_channels"] + width)
    return float(passes * (config["num_layers"] * block + around + caption))


def encode_text_flops(config: Config, text_tokens: int) -> float:
    """Operations of a T5EncoderModel on one prompt, which is padded to `text_tokens`."""
    width, inner = config["d_model"], config["num_heads"] * config["d_kv"]
    linear = 4 * width * inner + 3 * width * config["d_ff"]
    return float(config["num_layers"] * (2 * text_tokens * linear + 4 * text_tokens**2 * inner))


def decode_flops(config: Config, frames: int, height: int, width: int) -> float:
    """Operations of a VAE's decoder on latents of `frames` x `height` x `width`, untiled.

    All of them are in convolutions: 2 x (inputs x outputs x kernel) at each position of a convolution's output. The
    config of an AutoencoderKLLTX2Video says which axes each block doubles; an AutoencoderKLLTXVideo doubles all.
    """
    channels, layers = config["decoder_block_out_channels"][::-1], config["decoder_layers_per_block"][::-1]
    factors = config["upsample_factor"][::-1]
    scaling = config["decoder_spatio_temporal_scaling"][::-1]
    kinds = config.get("upsample_type", ("spatiotemporal",) * len(scaling))
    wide, volume = channels[0], frames * height * width
    total = volume * (conv_parameters(config["latent_channels"], wide) + layers[0] * _resnet(wide, wide))
    for index, factor in enumerate(factors[: len(channels)]):
        inside, wide = wide // factor, channels[index] // factor
        if inside != wide:
            total += volume * _resnet(inside, wide)
        if scaling[index]:
            in_time, in_space = _STRIDES[kinds[index]]
            total += volume * conv_parameters(wide * factor, wide * in_time * in_space**2)
            # The first frame stays one where time doubles.
            frames, height, width = in_time * (frames - 1) + 1, in_space * height, in_space * width
            volume = frames * height * width
        total += volume * layers[index + 1] * _resnet(wide, wide)
    return 2.0 * (total + volume * conv_parameters(wide, config["out_channels"] * config["patch_size"] ** 2))


def encode_image_flops(config: Config, frames: int, height: int, width: int) -> float:
    """Operations of the encoder of an AutoencoderKLLTXVideo on `frames` of `height` x `width` pixels, untiled.

    Encoding a video takes some 2.3 times the operations of decoding it.
    """
    channels: Sequence[int] = config["block_out_channels"]
    is_095 = config["down_block_types"][-1] == "LTXVideo095DownBlock3D"
    path = list(channels) if is_095 else [*channels, channels[-1]]
    rows, columns = height // config["patch_size"], width // config["patch_size"]
    total = frames * rows * columns * conv_parameters(config["in_channels"] * config["patch_size"] ** 2, path[0])
    for index, (inside, outside) in enumerate(pairwise(path)):
        total += frames * rows * columns * config["layers_per_block"][index] * _resnet(inside, inside)
        if config["spatio_temporal_scaling"][index]:
            kind = config["downsample_type"][index] if is_095 else "conv"
            in_time, in_space = _STRIDES[kind]
            # The first frame stays one: convolutions with a stride begin at it, pixels become channels behind a copy.
            before = (frames + in_time - 1) * rows * columns
            frames, rows, columns = (frames - 1) // in_time + 1, rows // in_space, columns // in_space
            if kind == "conv":
                total += frames * rows * columns * conv_parameters(inside, inside)
            else:
                total += before * conv_parameters(inside, outside // (in_time * in_space**2))
        if not is_095 and inside != outside:
            total += frames * rows * columns * _resnet(inside, outside)
    volume = frames * rows * columns
    total += volume * config["layers_per_block"][-1] * _resnet(path[-1], path[-1])
    return 2.0 * (total + volume * conv_parameters(path[-1], config["latent_channels"] + 1))


_STRIDES = {"conv": (2, 2), "spatial": (1, 2), "temporal": (2, 1), "spatiotemporal": (2, 2)}
"""In time and in space, by the kind of a downsampler or upsampler."""


def upsample_flops(config: Config, frames: int, height: int, width: int) -> float:
    """Operations of a spatial LTXLatentUpsamplerModel on latents of `frames` x `height` x `width`."""
    inside, wide, blocks = config["in_channels"], config["mid_channels"], 2 * config["num_blocks_per_stage"]
    volume = frames * height * width
    before = conv_parameters(inside, wide) + blocks * conv_parameters(wide, wide) + 4 * wide * wide * 9
    after = blocks * conv_parameters(wide, wide) + conv_parameters(wide, inside)
    return 2.0 * volume * (before + 4 * after)


def _resnet(inside: int, outside: int) -> int:
    shortcut = conv_parameters(inside, outside, 1) if inside != outside else 0
    return conv_parameters(inside, outside) + conv_parameters(outside, outside) + shortcut
