"""Parameters and bytes of each component of an LTX-Video, by formula from its config: no weights, no torch.

The formulas follow the layers that diffusers 0.42 (transformer_ltx.py, autoencoder_kl_ltx.py) and transformers 5
(modeling_t5.py) build from the same config; tests/estimates/test_memory.py compares them with those classes at full
size.
What a stage needs beside its weights is in working_sets.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

BYTES_PER_PARAMETER: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}

TIMESTEP_CHANNELS = 256
"""Sinusoids of a timestep before its first linear layer, in every timestep embedder of diffusers' LTX classes."""

Config = Mapping[str, Any]


def component_bytes(num_parameters: int, precision: str) -> int:
    """Bytes of a component's weights in host or device memory."""
    return num_parameters * BYTES_PER_PARAMETER[precision]


def quantized_bytes(num_parameters: int, storage: str) -> int:
    """Bytes of the weights of full-size blocks in fewer bits, with their scales. Norms and biases count as weights.

    int8 has a float32 scale per output, int4 (NF4) an 8-bit scale per 64 weights and a float32 one per 256 of those; as
    norms stay in 16 bits, both are rounded up by a thousandth.
    """
    return int(num_parameters * {"float8": 1.0, "int8": 1.002, "int4": 0.517}[storage])


def transformer_parameters(config: Config) -> int:
    """Parameters of an LTXVideoTransformer3DModel."""
    width = config["num_attention_heads"] * config["attention_head_dim"]
    around = (
        _linear(config["in_channels"], width)
        + _timestep_embedder(width)
        + _linear(width, 6 * width)
        + _linear(config["caption_channels"], width)
        + _linear(width, width)
        + 2 * width
        + _linear(width, config["out_channels"])
    )
    return config["num_layers"] * transformer_block_parameters(config) + around


def transformer_block_parameters(config: Config) -> int:
    """Parameters of one of its blocks. Two blocks are on the device at a time when it is streamed."""
    width, text = config["num_attention_heads"] * config["attention_head_dim"], config["cross_attention_dim"]
    self_attention = 4 * _linear(width, width) + 2 * width
    cross_attention = 2 * _linear(width, width) + 2 * _linear(text, width) + 2 * width
    feed_forward = _linear(width, 4 * width) + _linear(4 * width, width)
    return self_attention + cross_attention + feed_forward + 6 * width


def largest_layer_parameters(config: Config, modulations: int = 6) -> int:
    """Parameters of a transformer's largest layer, which makes this many modulations of the timestep."""
    width = config["num_attention_heads"] * config["attention_head_dim"]
    return _linear(width, modulations * width)


def text_encoder_parameters(config: Config) -> int:
    """Parameters of a T5EncoderModel with a gated feed-forward; the input embedding counts once, as it is stored."""
    width, block = config["d_model"], text_encoder_block_parameters(config)
    position_bias = config["relative_attention_num_buckets"] * config["num_heads"]
    return config["vocab_size"] * width + config["num_layers"] * block + position_bias + width


def text_encoder_block_parameters(config: Config) -> int:
    """Parameters of one of its blocks, without the position bias that only the first one has."""
    width, inner = config["d_model"], config["num_heads"] * config["d_kv"]
    return 4 * width * inner + 3 * width * config["d_ff"] + 2 * width


def text_encoder_kept_parameters(config: Config) -> int:
    """Parameters of a block's last layer (`wo`). Its outputs are too large for float16, so it stays in float32.

    bitsandbytes does not quantise it either (`T5PreTrainedModel._keep_in_fp32_modules`); torchao does, so that what is
    planned for a CPU is a bound.
    """
    return config["d_ff"] * config["d_model"]


def vae_parameters(config: Config) -> int:
    """Parameters of an AutoencoderKLLTXVideo with the two statistics that it stores beside its weights."""
    return vae_encoder_parameters(config) + vae_decoder_parameters(config) + 2 * config["latent_channels"]


def vae_encoder_parameters(config: Config) -> int:
    """Parameters of the VAE's encoder, which rendering from text never runs."""
    channels: Sequence[int] = config["block_out_channels"]
    is_095 = config["down_block_types"][-1] == "LTXVideo095DownBlock3D"
    # In the first kind the last block keeps its channels; in 0.9.5's every block has a downsampler to the next number.
    path = list(channels) if is_095 else [*channels, channels[-1]]
    total = conv_parameters(config["in_channels"] * config["patch_size"] ** 2, path[0])
    for index, (inside, outside) in enumerate(pairwise(path)):
        total += config["layers_per_block"][index] * _resnet(inside, inside)
        if config["spatio_temporal_scaling"][index]:
            total += _downsampler(config["downsample_type"][index], inside, outside)
        if not is_095 and inside != outside:
            total += _resnet(inside, outside)
    total += config["layers_per_block"][-1] * _resnet(path[-1], path[-1])
    return total + conv_parameters(path[-1], config["latent_channels"] + 1)


def vae_decoder_parameters(config: Config) -> int:
    """Parameters of the VAE's decoder."""
    channels, layers = config["decoder_block_out_channels"][::-1], config["decoder_layers_per_block"][::-1]
    noisy, factors = config["decoder_inject_noise"][::-1], config["upsample_factor"][::-1]
    scaling, timed = config["decoder_spatio_temporal_scaling"][::-1], config["timestep_conditioning"]
    width = channels[0]
    total = conv_parameters(config["latent_channels"], width) + layers[0] * _resnet(width, width, noisy[0], timed)
    total += _timestep_embedder(4 * width) if timed else 0
    for index, factor in enumerate(factors[: len(channels)]):
        inside, width = width // factor, channels[index] // factor
        total += _timestep_embedder(4 * inside) if timed else 0
        if inside != width:
            total += _resnet(inside, width, noisy[index + 1], timed)
        if scaling[index]:
            total += conv_parameters(width * factor, width * factor * 8 // factor)
        total += layers[index + 1] * _resnet(width, width, noisy[index + 1], timed)
    if timed:
        total += 1 + _timestep_embedder(2 * width) + 2 * width
    return total + conv_parameters(width, config["out_channels"] * config["patch_size"] ** 2)


def _linear(inside: int, outside: int) -> int:
    return inside * outside + outside


def _timestep_embedder(width: int) -> int:
    return _linear(TIMESTEP_CHANNELS, width) + _linear(width, width)


def conv_parameters(inside: int, outside: int, kernel: int = 3) -> int:
    """Parameters of a convolution over time, height and width, with its bias."""
    return inside * outside * kernel**3 + outside


def _resnet(inside: int, outside: int, noisy: bool = False, timed: bool = False) -> int:
    shortcut = 2 * inside + conv_parameters(inside, outside, 1) if inside != outside else 0
    extras = (2 * inside if noisy else 0) + (4 * inside if timed else 0)
    return conv_parameters(inside, outside) + conv_parameters(outside, outside) + shortcut + extras


def _downsampler(kind: str, inside: int, outside: int) -> int:
    """Parameters of a downsampler. `conv` keeps the channels; the others turn pixels into channels, so they compute
    fewer."""
    if kind == "conv":
        return conv_parameters(inside, inside)
    return conv_parameters(inside, outside // {"spatial": 4, "temporal": 2, "spatiotemporal": 8}[kind])
