"""Floating-point operations of each stage of a clip, by formula from the configs: no weights, no torch.

A multiplication with its addition is two. Norms, activations and softmax are left out: under 1 % at full size.
"""

from __future__ import annotations

from ltx_dist.estimates.parameters import Config, conv_parameters


def denoise_flops(config: Config, tokens: int, text_tokens: int, passes: int) -> float:
    """Operations of `passes` calls of an LTXVideoTransformer3DModel; a step with guidance is two.

    Of width d a block is 28 N d^2 of linear layers, 4 N^2 d of attention, and the text's keys, values and attention.
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
    """Operations of one prompt in a T5EncoderModel; every prompt is padded to its `max_sequence_length`."""
    width, inner = config["d_model"], config["num_heads"] * config["d_kv"]
    linear = 4 * width * inner + 3 * width * config["d_ff"]
    return float(config["num_layers"] * (2 * text_tokens * linear + 4 * text_tokens**2 * inner))


def decode_flops(config: Config, frames: int, height: int, width: int) -> float:
    """Operations of an AutoencoderKLLTXVideo's decoder on latents of `frames` x `height` x `width`, untiled.

    All of it is convolutions, each of 2 x (inputs x outputs x kernel) at every place of its output.
    """
    channels, layers = config["decoder_block_out_channels"][::-1], config["decoder_layers_per_block"][::-1]
    factors = config["upsample_factor"][::-1]
    scaling = config["decoder_spatio_temporal_scaling"][::-1]
    wide, volume = channels[0], frames * height * width
    total = volume * (conv_parameters(config["latent_channels"], wide) + layers[0] * _resnet(wide, wide))
    for index, factor in enumerate(factors[: len(channels)]):
        inside, wide = wide // factor, channels[index] // factor
        if inside != wide:
            total += volume * _resnet(inside, wide)
        if scaling[index]:
            total += volume * conv_parameters(wide * factor, wide * 8)
            # Time doubles but for the first frame, which stays one.
            frames, height, width = 2 * frames - 1, 2 * height, 2 * width
            volume = frames * height * width
        total += volume * layers[index + 1] * _resnet(wide, wide)
    return 2.0 * (total + volume * conv_parameters(wide, config["out_channels"] * config["patch_size"] ** 2))


def _resnet(inside: int, outside: int) -> int:
    shortcut = conv_parameters(inside, outside, 1) if inside != outside else 0
    return conv_parameters(inside, outside) + conv_parameters(outside, outside) + shortcut
