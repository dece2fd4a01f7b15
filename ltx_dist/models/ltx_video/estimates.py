"""What each stage of LTX-Video takes: operations of a clip, rates of a device, bytes beside the weights. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltx_dist.estimates import working_sets
from ltx_dist.estimates.costs import StageRate, Work
from ltx_dist.estimates.flops import decode_flops, denoise_flops, encode_text_flops
from ltx_dist.estimates.parameters import (
    BYTES_PER_PARAMETER,
    component_bytes,
    quantized_bytes,
    text_encoder_block_parameters,
    text_encoder_kept_parameters,
    transformer_block_parameters,
)
from ltx_dist.estimates.stage_memory import StageMemory, WeightBytes
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import Storage

Config = Mapping[str, Any]

STAGE_RATES: Mapping[str, StageRate] = {
    "encode_text": StageRate(0.3, operations_per_byte=128),
    "denoise": StageRate(0.59),
    "decode": StageRate(0.35),
}
"""0.59 is the 97 of 165 TFLOP/s that diffusers reaches on an RTX 4090 (github.com/sayakpaul/q8-ltx-video); the other
two are estimates. The first clips of a run correct all of them. For one prompt T5 has to read all of its weights: 128
tokens are 2 x 128 operations for the 2 bytes of a weight."""

MARGIN: Mapping[str, Mapping[Any, float]] = {
    "encode_text": {"cuda": 1.1, "cpu": 1.1},
    "denoise": {"cuda": 1.1, "cpu": 1.1},
    "decode": {"cuda": 3.5, "cpu": 2.0},
}
"""What a device holds over the counted activations: the caching allocator's blocks, and workspaces of kernels.

Decoding, CUDA: 100 bytes per pixel-frame are counted in 16 bits, and three peaks that others published agree at 346 to
358 (github.com/Lightricks/LTX-Video/issues/36 and /pull/23; cornball-ai/diffuseR/pull/38): cuDNN's convolutions work in
copies of their own. Denoising, CUDA: diffusers' benchmark of 13B at 7,392 tokens allocates 25.2 GiB, which is its
weights and the counted 0.97 GB, so 1.1 is for fragments. CPU: oneDNN reorders a convolution's input and output.
"""


def stage_work(configs: Mapping[str, Config], ratios: tuple[int, int], request: RenderRequest) -> Work:
    """Operations of each device stage of a clip. ratios: the VAE's pixels and frames per latent.

    The negative prompt is encoded once for all clips, so a clip has one prompt.
    """
    spatial, temporal = ratios
    frames = (request.num_frames - 1) // temporal + 1
    rows, columns = request.height // spatial, request.width // spatial
    passes = request.num_inference_steps * (2 if request.do_classifier_free_guidance else 1)
    tokens = request.max_sequence_length
    return (
        encode_text_flops(configs["text_encoder"], tokens),
        denoise_flops(configs["transformer"], frames * rows * columns, tokens, passes),
        decode_flops(configs["vae"], frames, rows, columns),
    )


def weight_bytes(
    configs: Mapping[str, Config], parameters: Mapping[str, int], precision: str, storage: Storage
) -> Mapping[str, WeightBytes]:
    """The weights of each component on the device. parameters: how many elements each loads."""
    text, transformer = configs["text_encoder"], configs["transformer"]
    in_text, in_transformer = text_encoder_block_parameters(text), transformer_block_parameters(transformer)

    def blocked(count: int, num_blocks: int, per_block: int, kept: int, stored: str) -> int:
        """Bytes of so many parameters, of which those of so many blocks may be stored in fewer bits."""
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
    else:  # a quantised layer is more than tensors: it does not pass through in blocks
        encoder = WeightBytes(total)
    num_layers, stored = transformer["num_layers"], storage.transformer
    return {
        "text_encoder": encoder,
        "transformer": WeightBytes(
            blocked(parameters["transformer"], num_layers, in_transformer, 0, stored),
            blocked(in_transformer, 1, in_transformer, 0, stored),
            num_layers,
        ),
        "vae": WeightBytes(component_bytes(parameters["vae"], storage.vae_precision(precision))),
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
            "set model.text_encoder_quantization=int8 or int4",
        ),
        "denoise": StageMemory(
            lambda request, tiling, together: working_sets.denoise_bytes(
                configs["transformer"], request, ratios, element_bytes, together
            ),
            MARGIN["denoise"],
            "set model.transformer_storage=float8, or render fewer frames or pixels",
        ),
        "decode": StageMemory(
            lambda request, tiling, together: working_sets.decode_bytes(
                configs["vae"], request, vae_element_bytes, tiling
            ),
            MARGIN["decode"],
            "leave decode.tile_size and decode.tile_frames at auto, or else render fewer pixels",
            is_tiled=True,
            largest=working_sets.largest_to_decode,
        ),
    }
