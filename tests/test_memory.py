"""Predicted parameters and bytes equal the real classes, built on the meta device at full size."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from ltx_dist.checkpoints.versions import ARCHITECTURES, CONFIGS, read_config
from ltx_dist.scheduling.memory import (
    component_bytes,
    text_encoder_parameters,
    transformer_parameters,
    vae_decoder_parameters,
    vae_encoder_parameters,
    vae_parameters,
)

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
    assert named == {path.stem for path in CONFIGS.glob("*.json")}
