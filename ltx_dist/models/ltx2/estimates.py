"""Estimates for each stage of LTX-2.x: operations of a clip, rates of a device, bytes besides the weights. Pure.

Formulas follow the layers that diffusers 0.42 (transformer_ltx2.py, autoencoder_kl_ltx2.py, connectors.py) and
transformers 5 build from the same configs. tests/models/ltx2/test_ltx2_estimates.py compares them with those classes at
full size: operations by torch's FlopCounterMode, bytes on fake tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltx_dist.estimates.costs import StageRate, Work
from ltx_dist.estimates.parameters import BYTES_PER_PARAMETER, component_bytes, quantized_bytes
from ltx_dist.estimates.stage_memory import StageMemory, WeightBytes
from ltx_dist.estimates.working_sets import largest_to_decode, tile_shape
from ltx_dist.models.ltx2.passes import PassSettings, passes
from ltx_dist.pipeline.conditions import Condition
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import UNTILED, DecodeTiling, Storage

Config = Mapping[str, Any]
Ratios = tuple[int, int]

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
"""Memory of a device over the counted activations. Denoising on CUDA: a model of torch's allocator reserves 1.19 to
1.51 times what is allocated (tests/cuda/test_caching_allocator.py). The others are copied from LTX-Video, whose
convolutions are of the same kind: no peak of these models' decoder alone was published."""

FLOAT32_PARTS = ("audio_vae", "vocoder")
"""Loaded in float32 whatever the model's precision."""


# Operations


def stage_work(configs: Mapping[str, Config], ratios: Ratios, request: RenderRequest) -> Work:
    """Operations of each device stage of a clip, 0 of one that it does not run. ratios: the VAE's pixels and frames per
    latent. The negative prompt is encoded once for all clips, so a clip has one prompt."""
    first, *second = passes(request)
    rows = sum(2 if guided else 1 for guided in {one.guidance.is_classifier_free for one in passes(request)})
    frames, height, width = latent_shape(request, (request.height, request.width), ratios)
    refine = 0.0
    if second:
        small = latent_shape(request, (first.height, first.width), ratios)
        refine = _upsample_flops(configs["latent_upsampler"], *small) + _pass_flops(configs, ratios, request, second[0])
    return (
        text_flops(configs["text_encoder"], request.max_sequence_length)
        + rows * connectors_flops(configs["connectors"], request.max_sequence_length),
        encode_image_flops(configs["vae_encoder"], ratios, request),
        _pass_flops(configs, ratios, request, first),
        refine,
        decode_flops(configs["vae"], frames, height, width) + _SOUND_FLOPS * request.num_frames / request.frame_rate,
    )


_SOUND_FLOPS = 0.2e12
"""Per second of sound: 0.31 TFLOP of the VAE and some 0.7 of the vocoder for 5 s, counted on both."""


def latent_shape(request: RenderRequest, size: tuple[int, int], ratios: Ratios) -> tuple[int, int, int]:
    """Latent frames, rows and columns of the clip at a size in pixels."""
    spatial, temporal = ratios
    return (request.num_frames - 1) // temporal + 1, size[0] // spatial, size[1] // spatial


def video_tokens(request: RenderRequest, settings: PassSettings, ratios: Ratios) -> int:
    """The video tokens of the transformer: its latents, and those of keyframes after the first frame."""
    frames, height, width = latent_shape(request, (settings.height, settings.width), ratios)
    added = sum(_latent_frames(one, ratios) for one in request.conditions if one.frame_index != 0)
    return (frames + added) * height * width


def sound_tokens(request: RenderRequest) -> int:
    """25 latents per second, as diffusers rounds them."""
    return round(request.num_frames / request.frame_rate * 25)


def _latent_frames(condition: Condition, ratios: Ratios) -> int:
    return (condition.num_frames - 1) // ratios[1] + 1


def denoising(request: RenderRequest) -> tuple[tuple[int, int], ...]:
    """Per pass, its steps and how often a step runs the transformer on a clip: 4 times with all guidance on."""
    return tuple((one.num_inference_steps, one.guidance.transformer_passes) for one in passes(request))


def _pass_flops(configs: Mapping[str, Config], ratios: Ratios, request: RenderRequest, settings: PassSettings) -> float:
    calls = settings.num_inference_steps * settings.guidance.transformer_passes
    tokens = video_tokens(request, settings, ratios)
    text = request.max_sequence_length
    return calls * transformer_flops(
        configs["transformer"], tokens, sound_tokens(request), text, per_token=bool(request.conditions)
    )


def transformer_flops(config: Config, video: int, sound: int, text: int, per_token: bool = False) -> float:
    """Operations of one call of an LTX2VideoTransformer3DModel on this many tokens.

    A block attends within the video (width d) and within the sound (width e), from each to the text, and between the
    two at width e. per_token: with conditions the modulation is made for each token, not once.
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
        # 2.0 also modulates by it how the two attend to each other; later versions by one noise level.
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


def decode_flops(config: Config, frames: int, height: int, width: int) -> float:
    """Operations of an AutoencoderKLLTX2Video's decoder on latents of `frames` x `height` x `width`, undivided."""
    channels, layers = config["decoder_block_out_channels"][::-1], config["decoder_layers_per_block"][::-1]
    factors, scaling = config["upsample_factor"][::-1], config["decoder_spatio_temporal_scaling"][::-1]
    kinds = config["upsample_type"]
    wide, volume = channels[0], frames * height * width
    total = volume * (_conv(config["latent_channels"], wide) + layers[0] * _resnet(wide, wide))
    for index, factor in enumerate(factors[: len(channels)]):
        inside, wide = wide // factor, channels[index] // factor
        if inside != wide:
            total += volume * _resnet(inside, wide)
        if scaling[index]:
            total += volume * _conv(wide * factor, wide * {"spatial": 4, "temporal": 2}.get(kinds[index], 8))
            if kinds[index] != "spatial":
                frames = 2 * frames - 1
            if kinds[index] != "temporal":
                height, width = 2 * height, 2 * width
            volume = frames * height * width
        total += volume * layers[index + 1] * _resnet(wide, wide)
    return 2.0 * (total + volume * _conv(wide, config["out_channels"] * config["patch_size"] ** 2))


def encode_image_flops(config: Config, ratios: Ratios, request: RenderRequest) -> float:
    """Operations of the encoder for every condition at the size of each pass that it is encoded for."""
    sizes = [(one.height, one.width) for one in passes(request)]
    return sum(
        _encode_flops(config, one.num_frames, height // config["patch_size"], width // config["patch_size"])
        for one in request.conditions
        for height, width in sizes
    )


def _encode_flops(config: Config, frames: int, height: int, width: int) -> float:
    """On `frames` of patches `height` x `width`."""
    channels, layers = config["block_out_channels"], config["layers_per_block"]
    wide = config["latent_channels"]
    total = frames * height * width * _conv(config["in_channels"] * config["patch_size"] ** 2, wide)
    for index, kind in enumerate(config["downsample_type"]):
        total += frames * height * width * layers[index] * _resnet(wide, wide)
        outside = channels[index]
        if config["spatio_temporal_scaling"][index]:
            frames += kind != "spatial"  # the first one is there twice
            total += frames * height * width * _conv(wide, outside // {"spatial": 4, "temporal": 2}.get(kind, 8))
            if kind != "spatial":
                frames //= 2
            if kind != "temporal":
                height, width = height // 2, width // 2
        wide = outside
    volume = frames * height * width
    last = layers[-1] * _resnet(wide, wide) + _conv(wide, config["latent_channels"] + 1)
    return 2.0 * (total + volume * last)


def _upsample_flops(config: Config, frames: int, height: int, width: int) -> float:
    """Operations of the spatial upsampler on latents of this shape: residual blocks before and after the doubling."""
    middle, blocks, volume = config["mid_channels"], config["num_blocks_per_stage"], frames * height * width
    before = _conv(config["in_channels"], middle) + 2 * blocks * _conv(middle, middle)
    doubling = 9 * middle * 4 * middle
    after = 2 * blocks * _conv(middle, middle) + _conv(middle, config["in_channels"])
    return 2.0 * volume * (before + doubling + 4 * after)


def _conv(inside: int, outside: int) -> int:
    return 27 * inside * outside


def _resnet(inside: int, outside: int) -> int:
    return _conv(inside, outside) + _conv(outside, outside) + (inside * outside if inside != outside else 0)


# Bytes


def weight_bytes(
    configs: Mapping[str, Config], parameters: Mapping[str, int], precision: str, storage: Storage
) -> Mapping[str, WeightBytes]:
    """The weights of each component on the device. parameters: how many elements each loads, `NAME.block` of one of its
    blocks, as the checkpoint's headers have them, and `NAME.loras` of what the batch's LoRAs add to it."""
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
        # A quantised layer of the text encoder is more than tensors: it does not pass through in blocks.
        streams = name == "transformer" or not fewer
        found[name] = WeightBytes(total, of_block, count) if streams else WeightBytes(total)
    return found


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

    smaller = "set model.transformer_storage=float8, or render fewer frames or pixels"
    return {
        "encode_text": StageMemory(
            lambda request, tiling, together: encode_text_bytes(configs["connectors"], request, element),
            MARGIN["encode_text"],
            "use a device with more memory for the text encoder",
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


STATES_HELD = {2: 4.5, 4: 4.36}
"""By bytes of an element: how often the connectors hold what Gemma's layers made of a row."""


def encode_text_bytes(connectors: Config, request: RenderRequest, element_bytes: int) -> int:
    """Bytes of the connectors on both prompts at once, which takes more than Gemma on one."""
    guided = any(one.guidance.is_classifier_free for one in passes(request))
    states = request.max_sequence_length * connectors["caption_channels"] * connectors["text_proj_in_factor"]
    return int((2 if guided else 1) * STATES_HELD[element_bytes] * states * element_bytes)


BYTES_PER_ELEMENT = {2: 36.05, 4: 66.15}
"""Bytes of the transformer, by bytes per element: what it holds for an element of the video's hidden states."""

MODULATION_BYTES = {("2.0", 2): 46.0, ("2.0", 4): 92.0, ("2.3", 2): 38.0, ("2.3", 4): 76.0}
"""The additional part if each token has its own noise level; by kind of block."""


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
"""Bytes of a vocoder in float32, per latent of sound, of which a second has 25."""

TENSORS_HELD = {True: 5.36, False: 4.58}
"""Number of full-size tensors in the decoder's last block: with residual upsampling (2.0), and without."""


def decode_bytes(
    configs: Mapping[str, Config], request: RenderRequest, element_bytes: int, tiling: DecodeTiling = UNTILED
) -> int:
    """Bytes of the VAE's decoder at one tile, and of pixels that wait to be blended with it; or of the vocoder."""
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
