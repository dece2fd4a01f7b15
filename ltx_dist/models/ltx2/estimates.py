"""Estimates for each stage of LTX-2.x: operations, rates of a device, bytes of weights and of activations. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltx_dist.estimates.costs import StageRate, Work
from ltx_dist.estimates.flops import decode_flops, upsample_flops
from ltx_dist.estimates.parameters import (
    BYTES_PER_PARAMETER,
    component_bytes,
    largest_layer_parameters,
    quantized_bytes,
)
from ltx_dist.estimates.stage_memory import STREAM_INSTEAD, StageMemory, WeightBytes
from ltx_dist.estimates.working_sets import largest_to_decode
from ltx_dist.models.ltx2.flops import (
    SOUND_FLOPS,
    connectors_flops,
    encode_image_flops,
    text_flops,
    transformer_flops,
)
from ltx_dist.models.ltx2.passes import PassSettings, passes
from ltx_dist.models.ltx2.tokens import Ratios, latent_shape, sound_tokens, video_tokens
from ltx_dist.models.ltx2.working_sets import (
    decode_bytes,
    denoise_bytes,
    encode_image_bytes,
    encode_text_bytes,
    upsample_bytes,
)
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import DecodeTiling, Storage

Config = Mapping[str, Any]

STAGE_RATES: Mapping[str, StageRate] = {
    "encode_text": StageRate(0.3, operations_per_byte=1024),
    "encode_image": StageRate(0.1),
    "denoise": StageRate(0.57),
    "refine": StageRate(0.57),
    "decode": StageRate(0.25),
}
"""Denoising: 450 TFLOP/s on an H100; SGLang's 6.0 s of denoising for 8 guided steps at 768x512x121 are in line with it
(github.com/sgl-project/sglang/issues/23137). The others are estimates. The first clips of a run correct all of them.
Gemma reads its weights once for 1,024 tokens."""

MARGIN: Mapping[str, Mapping[Any, float]] = {
    "encode_text": {"cuda": 1.1, "cpu": 1.1},
    "encode_image": {"cuda": 3.5, "cpu": 2.0},
    "denoise": {"cuda": 1.52, "cpu": 1.15},
    "refine": {"cuda": 1.52, "cpu": 1.15},
    "decode": {"cuda": 3.5, "cpu": 2.0},
}
"""Device memory that a stage needs, as a multiple of its counted activations.

Denoising on CUDA: a simulation of torch's allocator reserves 1.19 to 1.51 times what is allocated
(tests/cuda/test_caching_allocator.py). Images and decoding: as for LTX-Video, whose convolutions are of the same kind;
no peak of these models' decoder alone was published. Prompts: an estimate.
"""

FLOAT32_PARTS = ("audio_vae", "vocoder")
"""Loaded in float32 whatever the model's precision."""


# Operations


def stage_work(configs: Mapping[str, Config], ratios: Ratios, request: RenderRequest) -> Work:
    """Operations of each device stage of a clip, 0 for a stage that it does not run.

    ratios: the VAE's pixels and frames per latent. Only the clip's own prompt counts: the negative prompt is encoded
    once for all clips.
    """
    first, *second = passes(request)
    rows = sum(2 if guided else 1 for guided in {one.guidance.is_classifier_free for one in passes(request)})
    frames, height, width = latent_shape(request, (request.height, request.width), ratios)
    refine = 0.0
    if second:
        small = latent_shape(request, (first.height, first.width), ratios)
        refine = upsample_flops(configs["latent_upsampler"], *small) + _pass_flops(configs, ratios, request, second[0])
    return (
        text_flops(configs["text_encoder"], request.max_sequence_length)
        + rows * connectors_flops(configs["connectors"], request.max_sequence_length),
        encode_image_flops(configs["vae_encoder"], ratios, request),
        _pass_flops(configs, ratios, request, first),
        refine,
        decode_flops(configs["vae"], frames, height, width) + SOUND_FLOPS * request.num_frames / request.frame_rate,
    )


def denoising(request: RenderRequest) -> tuple[tuple[int, int], ...]:
    """For each pass, its steps and how often a step runs the transformer on a clip: 4 times with all guidance on."""
    return tuple((one.num_inference_steps, one.guidance.transformer_passes) for one in passes(request))


def _pass_flops(configs: Mapping[str, Config], ratios: Ratios, request: RenderRequest, settings: PassSettings) -> float:
    calls = settings.num_inference_steps * settings.guidance.transformer_passes
    tokens = video_tokens(request, settings, ratios)
    text = request.max_sequence_length
    return calls * transformer_flops(
        configs["transformer"], tokens, sound_tokens(request), text, per_token=bool(request.conditions)
    )


# Bytes


def weight_bytes(
    configs: Mapping[str, Config], parameters: Mapping[str, int], precision: str, storage: Storage
) -> Mapping[str, WeightBytes]:
    """The weights of each component on the device.

    parameters: number of elements, from the headers of the files: of each component by its name, of one of its blocks
    as `NAME.block`, and of what the batch's LoRAs add to it as `NAME.loras`.
    """
    loras = {name.removesuffix(".loras"): count for name, count in parameters.items() if name.endswith(".loras")}
    found = {
        name: WeightBytes(
            component_bytes(count + loras.get(name, 0), "float32" if name in FLOAT32_PARTS else precision)
        )
        for name, count in parameters.items()
        if "." not in name
    }
    num_layers = {
        "transformer": configs["transformer"]["num_layers"],
        "text_encoder": configs["text_encoder"]["text_config"]["num_hidden_layers"],
    }
    stored = {"transformer": storage.transformer, "text_encoder": storage.text_encoder}
    for name, count in num_layers.items():
        block = parameters[f"{name}.block"]
        kept, fewer = parameters[name] - count * block, stored[name] not in ("same", "none")
        of_block = quantized_bytes(block, stored[name]) if fewer else component_bytes(block, precision)
        # LoRAs stay in the model's precision beside weights in fewer bits, and nearly all of them are in the blocks.
        of_block += component_bytes(loras.get(name, 0), precision) // count
        total = component_bytes(kept, precision) + count * of_block
        # A quantised layer of the text encoder is more than plain tensors, so it cannot be streamed block by block.
        streams = name == "transformer" or not fewer
        cast_layer = component_bytes(_largest_layer(name, configs[name]), precision) if fewer else 0
        found[name] = (
            WeightBytes(total, of_block, count, cast_layer) if streams else WeightBytes(total, 0, 0, cast_layer)
        )
    return found


def _largest_layer(name: str, config: Config) -> int:
    if name == "transformer":
        return largest_layer_parameters(config, 9 if config.get("cross_attn_mod") else 6)
    return config["text_config"]["hidden_size"] * config["text_config"]["intermediate_size"]


def stage_memory(
    configs: Mapping[str, Config], ratios: Ratios, precision: str, storage: Storage
) -> Mapping[str, StageMemory]:
    """Activations of each device stage."""
    element = BYTES_PER_PARAMETER[precision]

    def of_pass(index: int, request: RenderRequest) -> int:
        settings = passes(request)
        return denoise_bytes(configs, ratios, request, settings[index], element) if index < len(settings) else 0

    def refine(request: RenderRequest, tiling: DecodeTiling, together: int) -> int:
        return max(of_pass(1, request), upsample_bytes(configs["latent_upsampler"], ratios, request, element))

    more = "use a device with more memory for the text encoder, or on a CPU model.text_encoder_quantization=int8"
    smaller = "set model.transformer_storage=float8, or render fewer frames or pixels"
    return {
        "encode_text": StageMemory(
            lambda request, tiling, together: encode_text_bytes(configs["connectors"], request, element),
            MARGIN["encode_text"],
            STREAM_INSTEAD if storage.is_quantised("text_encoder") else more,
        ),
        "encode_image": StageMemory(
            lambda request, tiling, together: encode_image_bytes(request, element),
            MARGIN["encode_image"],
            "condition on fewer frames, or render fewer pixels",
        ),
        "denoise": StageMemory(lambda request, tiling, together: of_pass(0, request), MARGIN["denoise"], smaller),
        "refine": StageMemory(refine, MARGIN["refine"], smaller),
        "decode": StageMemory(
            lambda request, tiling, together: decode_bytes(configs, request, element, tiling),
            MARGIN["decode"],
            "leave decode.tile_size and decode.tile_frames at auto, or else render fewer pixels",
            is_tiled=True,
            largest=largest_to_decode,
        ),
    }
