"""Operations of each network of LTX-2.x, by its config and the size of its input. Pure.

Formulas follow the layers that diffusers 0.42 (transformer_ltx2.py, autoencoder_kl_ltx2.py, connectors.py) and
transformers 5 build from the same configs. tests/models/ltx2/test_ltx2_estimates.py compares them with those classes at
full size, by torch's FlopCounterMode.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltx_dist.models.ltx2.passes import passes
from ltx_dist.models.ltx2.tokens import Ratios
from ltx_dist.pipeline.request import RenderRequest

Config = Mapping[str, Any]

SOUND_FLOPS = 0.2e12
"""Operations per second of sound: counted for 5 s, 0.31 TFLOP in the VAE and some 0.7 TFLOP in the vocoder."""


def transformer_flops(config: Config, video: int, sound: int, text: int, per_token: bool = False) -> float:
    """Operations of one call of an LTX2VideoTransformer3DModel on this many tokens.

    A block attends within the video (width d) and within the sound (width e), from each to the text, and between the
    two at width e. per_token: the modulation is computed for each token, as with conditions, and not once per clip.
    """
    d = config["num_attention_heads"] * config["attention_head_dim"]
    e = config["audio_num_attention_heads"] * config["audio_attention_head_dim"]
    block = 8 * video * d**2 + 4 * video**2 * d + 8 * sound * e**2 + 4 * sound**2 * e
    block += 4 * video * d**2 + 4 * text * config["cross_attention_dim"] * d + 4 * video * text * d
    block += 4 * sound * e**2 + 4 * text * config["audio_cross_attention_dim"] * e + 4 * sound * text * e
    block += 2 * (4 * video * d * e + 4 * sound * e**2 + 4 * video * sound * e)
    block += 16 * video * d**2 + 16 * sound * e**2
    around = 2 * video * d * (config["in_channels"] + config["out_channels"])
    if config.get("use_prompt_embeddings", True):
        around += 2 * text * (config["caption_channels"] * (d + e) + d**2 + e**2)
    if per_token:
        # In 2.0 the tokens' noise levels also modulate the attention between the two; later versions use one level.
        around += 2 * video * d**2 * (10 if config.get("cross_attn_mod") else 14)
    return float(config["num_layers"] * block + around)


def text_flops(config: Config, tokens: int) -> float:
    """Operations of one prompt through Gemma's layers; every prompt is padded to its `max_sequence_length`."""
    text = config["text_config"]
    width, heads, dim = text["hidden_size"], text["num_attention_heads"], text["head_dim"]
    linear = width * dim * (2 * heads + 2 * text["num_key_value_heads"]) + 3 * width * text["intermediate_size"]
    return float(text["num_hidden_layers"] * (2 * tokens * linear + 4 * tokens**2 * heads * dim))


def connectors_flops(config: Config, tokens: int) -> float:
    """Operations of one prompt through LTX2TextConnectors: its projections and both stacks."""
    states = config["caption_channels"] * config["text_proj_in_factor"]
    total = 0.0
    for kind in ("video", "audio"):
        heads = config[f"{kind}_connector_num_attention_heads"] * config[f"{kind}_connector_attention_head_dim"]
        total += config[f"{kind}_connector_num_layers"] * (24 * tokens * heads**2 + 4 * tokens**2 * heads)
        if config.get("per_modality_projections"):
            total += 2 * tokens * states * config[f"{kind}_hidden_dim"]
    if not config.get("per_modality_projections"):
        total += 2 * tokens * states * config["caption_channels"]
    return total


def encode_image_flops(config: Config, ratios: Ratios, request: RenderRequest) -> float:
    """Operations of the encoder for every condition at the size of each pass that it is encoded for."""
    sizes = [(one.height, one.width) for one in passes(request)]
    return sum(
        encoder_flops(config, one.num_frames, height // config["patch_size"], width // config["patch_size"])
        for one in request.conditions
        for height, width in sizes
    )


def encoder_flops(config: Config, frames: int, height: int, width: int) -> float:
    """Operations of the encoder on `frames` frames of `height` x `width` patches."""
    channels, layers = config["block_out_channels"], config["layers_per_block"]
    wide = config["latent_channels"]
    total = frames * height * width * _conv(config["in_channels"] * config["patch_size"] ** 2, wide)
    for index, kind in enumerate(config["downsample_type"]):
        total += frames * height * width * layers[index] * _resnet(wide, wide)
        outside = channels[index]
        if config["spatio_temporal_scaling"][index]:
            frames += kind != "spatial"  # the first frame is repeated
            total += frames * height * width * _conv(wide, outside // {"spatial": 4, "temporal": 2}.get(kind, 8))
            if kind != "spatial":
                frames //= 2
            if kind != "temporal":
                height, width = height // 2, width // 2
        wide = outside
    volume = frames * height * width
    last = layers[-1] * _resnet(wide, wide) + _conv(wide, config["latent_channels"] + 1)
    return 2.0 * (total + volume * last)


def _conv(inside: int, outside: int) -> int:
    return 27 * inside * outside


def _resnet(inside: int, outside: int) -> int:
    return _conv(inside, outside) + _conv(outside, outside) + (inside * outside if inside != outside else 0)
