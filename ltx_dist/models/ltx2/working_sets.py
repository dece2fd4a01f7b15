"""Bytes that each network of LTX-2.x holds beside its weights while it runs. Pure.

tests/models/ltx2/test_ltx2_estimates.py compares them with the real classes at full size, on fake tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltx_dist.estimates.working_sets import tile_shape
from ltx_dist.models.ltx2.passes import PassSettings, passes
from ltx_dist.models.ltx2.tokens import Ratios, latent_shape, sound_tokens, video_tokens
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import UNTILED, DecodeTiling

Config = Mapping[str, Any]

STATES_HELD = {2: 4.5, 4: 4.36}
"""How many copies of a row of Gemma's hidden states the connectors hold, by bytes per element."""


def encode_text_bytes(connectors: Config, request: RenderRequest, element_bytes: int) -> int:
    """Bytes that the connectors hold for both prompts at once, which is more than Gemma holds for one."""
    guided = any(one.guidance.is_classifier_free for one in passes(request))
    states = request.max_sequence_length * connectors["caption_channels"] * connectors["text_proj_in_factor"]
    return int((2 if guided else 1) * STATES_HELD[element_bytes] * states * element_bytes)


BYTES_PER_ELEMENT = {2: 36.05, 4: 66.15}
"""Bytes that the transformer holds for each element of the video's hidden states, by bytes per element."""

MODULATION_BYTES = {("2.0", 2): 46.0, ("2.0", 4): 92.0, ("2.3", 2): 38.0, ("2.3", 4): 76.0}
"""Bytes to add if each token has its own noise level, by kind of block."""


def denoise_bytes(
    configs: Mapping[str, Config], ratios: Ratios, request: RenderRequest, settings: PassSettings, element_bytes: int
) -> int:
    """Bytes of the transformer at one step; with guidance by the negative prompt both rows are computed at once."""
    config = configs["transformer"]
    width = config["num_attention_heads"] * config["attention_head_dim"]
    per_element = BYTES_PER_ELEMENT[element_bytes]
    if request.conditions:
        kind = "2.3" if config.get("cross_attn_mod") else "2.0"
        per_element += MODULATION_BYTES[kind, element_bytes]
    tokens = video_tokens(request, settings, ratios)
    text = 4 * request.max_sequence_length * element_bytes
    rows = 2 if settings.guidance.is_classifier_free else 1
    return int(rows * width * (tokens * per_element + text))


def upsample_bytes(upsampler: Config, ratios: Ratios, request: RenderRequest, element_bytes: int) -> int:
    """Bytes of the upsampler: four tensors of its output's size."""
    frames, height, width = latent_shape(request, (request.height, request.width), ratios)
    return int(4.05 * frames * height * width * upsampler["mid_channels"] * element_bytes)


def encode_image_bytes(request: RenderRequest, element_bytes: int) -> int:
    """Bytes of the VAE's encoder at its largest condition, at the size of the last pass."""
    frames = max((one.num_frames for one in request.conditions), default=0)
    return request.height * request.width * element_bytes * (42 * frames + 49) if frames else 0


SOUND_BYTES = {"LTX2Vocoder": 1_240_000, "LTX2VocoderWithBWE": 1_740_000}
"""Bytes that a vocoder in float32 holds per latent of sound; one second has 25 latents."""

TENSORS_HELD = {True: 5.36, False: 4.58}
"""Number of full-size tensors in the decoder's last block: with residual upsampling (2.0), and without."""


def decode_bytes(
    configs: Mapping[str, Config], request: RenderRequest, element_bytes: int, tiling: DecodeTiling = UNTILED
) -> int:
    """Bytes of the VAE's decoder for one tile and the pixels waiting to be blended with it; if more, of the vocoder."""
    config = configs["vae"]
    frames, height, width = tile_shape(request, tiling)
    wide = config["decoder_block_out_channels"][0] // config["upsample_factor"][0]
    per_frame = wide * (height // config["patch_size"]) * (width // config["patch_size"])
    held = TENSORS_HELD[bool(config["upsample_residual"][0])]
    waiting = (tiling.tile_frames is not None) + (tiling.tile_size is not None)
    video = held * frames * per_frame * element_bytes
    video += waiting * 3 * element_bytes * frames * request.height * request.width
    sound = SOUND_BYTES[configs["vocoder"]["_class_name"]] * sound_tokens(request)
    return int(max(video, sound))
