"""Predicted parameters and bytes equal those of the real classes at full size, which take no memory here."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from ltx_dist.checkpoints.versions import ARCHITECTURES, CONFIGS, read_config
from ltx_dist.estimates.parameters import (
    component_bytes,
    largest_layer_parameters,
    text_encoder_block_parameters,
    text_encoder_parameters,
    transformer_block_parameters,
    transformer_parameters,
    vae_decoder_parameters,
    vae_encoder_parameters,
    vae_parameters,
)
from ltx_dist.estimates.working_sets import (
    decode_bytes,
    denoise_bytes,
    encode_image_bytes,
    encode_text_bytes,
    refine_bytes,
)
from ltx_dist.pipeline.conditions import Condition, SecondPass
from ltx_dist.pipeline.storage import UNTILED, DecodeTiling

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import working_sets as counted  # noqa: E402

TRANSFORMERS = sorted({version.transformer for version in ARCHITECTURES.values()})
VAES = sorted({version.vae for version in ARCHITECTURES.values()})


@cache
def full_size(name: str) -> torch.nn.Module:
    import diffusers
    import transformers

    config = read_config(name)
    with torch.device("meta"):
        if name == "text_encoder":
            return transformers.T5EncoderModel(transformers.T5Config(**config))
        return getattr(diffusers, config["_class_name"]).from_config(config)


def count(module: torch.nn.Module) -> int:
    """What a checkpoint stores: parameters and persistent buffers, tied ones once."""
    tensors = {id(tensor): tensor.numel() for tensor in module.parameters()}
    buffers = [module.get_buffer(name).numel() for name in module.state_dict() if name.startswith("latents_")]
    return sum(tensors.values()) + sum(buffers)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers(name: str) -> None:
    assert transformer_parameters(read_config(name)) == count(full_size(name))


@pytest.mark.parametrize("name", VAES)
def test_vaes_and_their_halves(name: str) -> None:
    config = read_config(name)
    vae: Any = full_size(name)
    assert vae_parameters(config) == count(vae)
    assert vae_encoder_parameters(config) == count(vae.encoder)
    assert vae_decoder_parameters(config) == count(vae.decoder)


def test_the_text_encoder() -> None:
    assert text_encoder_parameters(read_config("text_encoder")) == count(full_size("text_encoder"))


def test_blocks_that_are_streamed() -> None:
    encoder: Any = full_size("text_encoder")
    block = count(encoder.encoder.block[1])
    assert text_encoder_block_parameters(read_config("text_encoder")) == block
    for name in TRANSFORMERS:
        transformer: Any = full_size(name)
        assert transformer_block_parameters(read_config(name)) == count(transformer.transformer_blocks[0])


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_largest_layers(name: str) -> None:
    assert largest_layer_parameters(read_config(name)) == max(layers_of(full_size(name)))


def layers_of(module: torch.nn.Module) -> list[int]:
    """Parameters of each layer, by itself."""
    return [sum(one.numel() for one in layer.parameters(recurse=False)) for layer in module.modules()]


DTYPES = {2: torch.bfloat16, 4: torch.float32}
TOLERANCE = 0.03


@pytest.mark.parametrize("element_bytes", DTYPES)
@pytest.mark.parametrize("tokens", [128, 256, 512])
def test_working_set_of_encoding(tokens: int, element_bytes: int) -> None:
    config = read_config("text_encoder")
    expected = counted.count_encode_text(config, tokens, DTYPES[element_bytes])
    assert encode_text_bytes(config, tokens, element_bytes) == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.parametrize("element_bytes", DTYPES)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_working_set_of_denoising(name: str, guidance: float, element_bytes: int) -> None:
    config, request = read_config(name), counted.example(480, 704, 121, guidance)
    expected = counted.count_denoise(config, request, DTYPES[element_bytes])
    assert denoise_bytes(config, request, (32, 8), element_bytes) == pytest.approx(expected, rel=TOLERANCE)


PICTURE = Condition("/a.png", "")
CLIP_OF_TWO = replace(
    counted.example(704, 1216, 121, 1.0, 256),
    second_pass=SecondPass(448, 800, 3, (909.4, 725.0, 421.9), 1.0, 1.0, 0.0, 0.15),
)


@pytest.mark.parametrize("element_bytes", DTYPES)
@pytest.mark.parametrize(
    "conditions",
    [(PICTURE,), (PICTURE, replace(PICTURE, frame_index=40)), (replace(PICTURE, is_video=True, frame_index=40),)],
)
def test_working_set_of_denoising_with_conditions(conditions: tuple[Condition, ...], element_bytes: int) -> None:
    config = read_config("transformer-2b")
    request = replace(counted.example(480, 704, 121), conditions=conditions)
    expected = counted.count_conditioned(config, request, DTYPES[element_bytes])
    assert denoise_bytes(config, request, (32, 8), element_bytes) == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.parametrize("element_bytes", DTYPES)
@pytest.mark.parametrize("frames", [1, 17, 97])
@pytest.mark.parametrize("name", VAES)
def test_working_set_of_encoding_media(name: str, frames: int, element_bytes: int) -> None:
    config = read_config(name)
    medium = replace(PICTURE, is_video=frames > 1, num_frames=frames)
    request = replace(counted.example(512, 768, 97), conditions=(medium,))
    expected = counted.count_encode_image(config, (frames, 512, 768), DTYPES[element_bytes])
    assert 0.99 * expected <= encode_image_bytes(config, request, element_bytes) <= 1.3 * expected


@pytest.mark.parametrize("element_bytes", DTYPES)
def test_working_set_of_a_second_pass(element_bytes: int) -> None:
    config, upscaler = (
        read_config("transformer-2b"),
        {"in_channels": 128, "mid_channels": 512, "num_blocks_per_stage": 4},
    )
    first = replace(CLIP_OF_TWO, second_pass=None, height=448, width=800)
    assert denoise_bytes(config, CLIP_OF_TWO, (32, 8), element_bytes) == denoise_bytes(
        config, first, (32, 8), element_bytes
    )
    second = replace(CLIP_OF_TWO, second_pass=None, height=896, width=1600)
    largest = refine_bytes(config, upscaler, CLIP_OF_TWO, (32, 8), element_bytes)
    assert largest == denoise_bytes(config, second, (32, 8), element_bytes)
    assert decode_bytes(read_config("vae-0.9.5"), CLIP_OF_TWO, 2) == decode_bytes(read_config("vae-0.9.5"), second, 2)
    narrow = config | {"num_attention_heads": 1, "attention_head_dim": 8}
    expected = counted.count_upsample(upscaler, (16, 14, 25), DTYPES[element_bytes])
    upsampling = refine_bytes(narrow, upscaler, CLIP_OF_TWO, (32, 8), element_bytes)
    assert upsampling == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.parametrize("element_bytes", DTYPES)
def test_working_set_of_a_shared_pass(element_bytes: int) -> None:
    text, config, request = read_config("text_encoder"), read_config(TRANSFORMERS[0]), counted.example(256, 256, 25)
    expected = counted.count_encode_text(text, 128, DTYPES[element_bytes], prompts=4)
    bound = encode_text_bytes(text, 128, element_bytes, 4)
    assert expected <= bound <= 1.12 * expected, "some of its tensors serve all prompts"
    expected = counted.count_denoise(config, request, DTYPES[element_bytes], clips=4)
    assert denoise_bytes(config, request, (32, 8), element_bytes, 4) == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.parametrize("element_bytes", DTYPES)
@pytest.mark.parametrize("name", VAES)
def test_working_set_of_decoding(name: str, element_bytes: int) -> None:
    config, request = read_config(name), counted.example(512, 768, 97)
    expected = counted.count_decode(config, request, DTYPES[element_bytes], UNTILED)
    assert decode_bytes(config, request, element_bytes) == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.parametrize("tiling", [DecodeTiling(128, None), DecodeTiling(None, 24)], ids=str)
def test_working_set_of_decoding_in_tiles_is_a_bound(tiling: DecodeTiling) -> None:
    config, request = read_config("vae-0.9.5"), counted.example(128, 256, 33)
    expected = counted.count_decode(config, request, torch.bfloat16, tiling)
    assert decode_bytes(config, request, 2, tiling) == pytest.approx(expected, rel=0.3)
    assert decode_bytes(config, request, 2, tiling) > 0.99 * expected


@pytest.mark.parametrize(
    ("name", "published"), [("transformer-2b", 1_923_385_000), ("transformer-13b", 13_042_570_000)]
)
def test_transformers_are_of_the_published_size(name: str, published: int) -> None:
    assert transformer_parameters(read_config(name)) == pytest.approx(published, rel=1e-3)


def test_bytes_follow_the_precision() -> None:
    assert [component_bytes(10, precision) for precision in ("float32", "bfloat16", "float16")] == [40, 20, 20]


def test_every_version_names_configs_that_are_packaged_and_none_is_left_over() -> None:
    named = {
        name
        for version in ARCHITECTURES.values()
        for name in (version.transformer, version.vae, version.noise_scheduler, version.text_encoder)
    }
    assert named | {"official_names"} == {path.stem for path in CONFIGS.glob("*.json")}
