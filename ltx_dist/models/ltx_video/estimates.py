"""Estimates for each stage of LTX-Video: operations of a clip, rates of a device, bytes of activations. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltx_dist.estimates import working_sets
from ltx_dist.estimates.costs import StageRate, Work
from ltx_dist.estimates.flops import (
    decode_flops,
    denoise_flops,
    encode_image_flops,
    encode_text_flops,
    upsample_flops,
)
from ltx_dist.estimates.parameters import (
    BYTES_PER_PARAMETER,
    component_bytes,
    largest_layer_parameters,
    quantized_bytes,
    text_encoder_block_parameters,
    text_encoder_kept_parameters,
    transformer_block_parameters,
)
from ltx_dist.estimates.stage_memory import STREAM_INSTEAD, StageMemory, WeightBytes
from ltx_dist.estimates.working_sets import denoised_tokens, window_frames
from ltx_dist.pipeline.conditions import SecondPass
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import Storage

Config = Mapping[str, Any]

STAGE_RATES: Mapping[str, StageRate] = {
    "encode_text": StageRate(0.3, operations_per_byte=128),
    "encode_image": StageRate(0.35),
    "denoise": StageRate(0.59),
    "refine": StageRate(0.59),
    "decode": StageRate(0.35),
}
"""0.59 is the 97 of 165 TFLOP/s that diffusers reaches on an RTX 4090 (github.com/sayakpaul/q8-ltx-video); the other
two are estimates. The first clips of a run correct all of them. For one prompt T5 reads all of its weights: with 128
tokens that is 2 x 128 operations per weight of 2 bytes."""

MARGIN: Mapping[str, Mapping[Any, float]] = {
    "encode_text": {"cuda": 1.9, "cpu": 1.1},
    "encode_image": {"cuda": 3.5, "cpu": 2.0},
    "denoise": {"cuda": 1.9, "cpu": 1.1},
    "refine": {"cuda": 1.9, "cpu": 1.1},
    "decode": {"cuda": 3.5, "cpu": 2.0},
}
"""Device memory that a stage needs, as a multiple of its counted activations: the blocks that torch's allocator
reserves, and the workspaces of kernels, come on top.

Decoding on CUDA: the count is 100 bytes per pixel and frame in 16 bits; three published peaks are 346 to 358 bytes
(github.com/Lightricks/LTX-Video/issues/36 and /pull/23; cornball-ai/diffuseR/pull/38), because cuDNN's convolutions
work on copies. Denoising on CUDA: diffusers' benchmark of 13B at 7,392 tokens allocates 25.2 GiB, which is its weights
and the counted 0.97 GB; the allocator reserves 1.6 to 1.9 times what is allocated, by `benchmarks/reserved.py`.
Encoding a prompt on CUDA: the same holds, as the 17 MB of 128 tokens are in segments of 20 MiB.
CPU: oneDNN reorders a convolution's input and output.
"""


def denoising(request: RenderRequest) -> tuple[tuple[int, int], ...]:
    """For each pass, its steps and how often a step runs the transformer on a clip: twice with guidance."""
    passes = [(request.num_steps, request.guidance_scale)]
    if isinstance(two := request.second_pass, SecondPass):
        passes.append((two.num_steps, two.guidance_scale))
    return tuple((steps, 2 if guidance_scale > 1 else 1) for steps, guidance_scale in passes)


def stage_work(configs: Mapping[str, Config], ratios: tuple[int, int], request: RenderRequest) -> Work:
    """Operations of each device stage of a clip. ratios: the VAE's pixels and frames per latent.

    Only the clip's own prompt counts: the negative prompt is encoded once for all clips. An image or video that
    several clips share is encoded once for each of them.
    """
    spatial, temporal = ratios
    frames, text = (request.num_frames - 1) // temporal + 1, request.max_sequence_length
    rows, columns = (side // spatial for side in request.decoded_size)
    prompts = len(request.windows.distinct_prompts) if request.windows else 1

    def denoise(size: tuple[int, int], steps: int, calls: int) -> float:
        if request.windows:
            in_windows = window_frames(request, temporal)
            tokens, steps = [one * rows * columns for one in in_windows], steps // len(in_windows)
        else:
            tokens = [denoised_tokens(request, size, ratios)]
        return sum(denoise_flops(configs["transformer"], one, text, steps * calls) for one in tokens)

    first_pass, *second_pass = denoising(request)
    refine = 0.0
    for steps_and_calls in second_pass:
        first = (side // spatial for side in request.first_size)
        refine = upsample_flops(configs["latent_upsampler"], frames, *first)
        refine += denoise(request.decoded_size, *steps_and_calls)
    return (
        prompts * encode_text_flops(configs["text_encoder"], text),
        _encode_media_flops(configs["vae"], request),
        denoise(request.first_size, *first_pass),
        refine,
        decode_flops(configs["vae"], frames, rows, columns),
    )


def _encode_media_flops(config: Config, request: RenderRequest) -> float:
    """Operations of encoding a clip's media: conditions and references at the size of each pass, a video that the clip
    starts from at the size of the first."""
    sizes = [request.first_size, *([request.decoded_size] if request.second_pass else [])]
    of_seen = sum(encode_image_flops(config, one.num_frames, *size) for one in request.seen for size in sizes)
    of_video = encode_image_flops(config, request.video.num_frames, *request.first_size) if request.video else 0.0
    return of_seen + of_video


def weight_bytes(
    configs: Mapping[str, Config], parameters: Mapping[str, int], precision: str, storage: Storage
) -> Mapping[str, WeightBytes]:
    """The weights of each component on the device. parameters: the number of elements of each, by component name."""
    text, transformer = configs["text_encoder"], configs["transformer"]
    in_text, in_transformer = text_encoder_block_parameters(text), transformer_block_parameters(transformer)

    def blocked(count: int, num_blocks: int, per_block: int, kept: int, stored: str) -> int:
        """Bytes of `count` parameters, if the `num_blocks` blocks among them may be stored in fewer bits."""
        fewer = 0 if stored in ("none", "same") else num_blocks * (per_block - kept)
        return (
            (quantized_bytes(fewer, stored) if fewer else 0)
            + component_bytes(num_blocks * kept, "float32" if precision == "float16" else precision)
            + component_bytes(count - num_blocks * kept - fewer, precision)
        )

    kept, num_layers = text_encoder_kept_parameters(text), text["num_layers"]
    total = blocked(parameters["text_encoder"], num_layers, in_text, kept, storage.text_encoder)
    if storage.text_encoder == "none":
        block = blocked(in_text, 1, in_text, kept, "none")
        encoder = WeightBytes(total, block, num_layers)
    else:  # a quantised layer is more than plain tensors, so it cannot be streamed block by block
        encoder = WeightBytes(total, cast_layer=component_bytes(text["d_ff"] * text["d_model"], precision))
    num_layers, stored = transformer["num_layers"], storage.transformer
    # LoRAs stay in the model's precision beside weights in fewer bits, and nearly all of them are in the blocks.
    loras = component_bytes(parameters.get("transformer.loras", 0), precision)
    return {
        "text_encoder": encoder,
        "transformer": WeightBytes(
            blocked(parameters["transformer"], num_layers, in_transformer, 0, stored) + loras,
            blocked(in_transformer, 1, in_transformer, 0, stored) + loras // num_layers,
            num_layers,
            0 if stored == "same" else component_bytes(largest_layer_parameters(transformer), precision),
        ),
        "latent_upsampler": WeightBytes(component_bytes(parameters.get("latent_upsampler", 0), precision)),
        "vae": WeightBytes(component_bytes(parameters["vae"], storage.vae_precision(precision))),
        "vae_encoder": WeightBytes(component_bytes(parameters.get("vae_encoder", 0), storage.vae_precision(precision))),
    }


def stage_memory(
    configs: Mapping[str, Config], ratios: tuple[int, int], precision: str, storage: Storage
) -> Mapping[str, StageMemory]:
    """Activations of each device stage."""
    element_bytes = BYTES_PER_PARAMETER[precision]
    vae_element_bytes = BYTES_PER_PARAMETER[storage.vae_precision(precision)]
    return {
        "encode_text": StageMemory(
            lambda request, tiling, together: working_sets.encode_text_bytes(
                configs["text_encoder"], request.max_sequence_length, element_bytes, together
            ),
            MARGIN["encode_text"],
            STREAM_INSTEAD
            if storage.is_quantised("text_encoder")
            else "set model.text_encoder_quantization=int8 or int4",
        ),
        "denoise": StageMemory(
            lambda request, tiling, together: working_sets.denoise_bytes(
                configs["transformer"], request, ratios, element_bytes, together
            ),
            MARGIN["denoise"],
            "set model.transformer_storage=float8, or render fewer frames or pixels",
        ),
        "encode_image": StageMemory(
            lambda request, tiling, together: working_sets.encode_image_bytes(
                configs["vae"], request, vae_element_bytes
            ),
            MARGIN["encode_image"],
            "take fewer frames of the videos (num_frames), or render fewer pixels",
        ),
        "refine": StageMemory(
            lambda request, tiling, together: (
                working_sets.refine_bytes(
                    configs["transformer"], configs["latent_upsampler"], request, ratios, element_bytes
                )
                if request.second_pass
                else 0
            ),
            MARGIN["refine"],
            "set model.transformer_storage=float8, recipe: one_pass, or render fewer frames or pixels",
        ),
        "decode": StageMemory(
            lambda request, tiling, together: working_sets.decode_bytes(
                configs["vae"], request, vae_element_bytes, tiling
            ),
            MARGIN["decode"],
            "leave decode.tile_size and decode.tile_frames at auto, or else render fewer pixels",
            is_tiled=True,
            elements=lambda request, tiling: working_sets.decode_elements(configs["vae"], request, tiling),
            largest=working_sets.largest_to_decode,
        ),
    }
