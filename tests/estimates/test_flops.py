"""The formulas for operations give what torch counts on the real classes, at full size and without memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
from torch.utils.flop_counter import FlopCounterMode

from ltx_dist.checkpoints.versions import read_config
from ltx_dist.estimates.flops import decode_flops, encode_image_flops, upsample_flops

UPSCALER = {"in_channels": 128, "mid_channels": 512, "num_blocks_per_stage": 4}


def counted(call: Callable[[], Any]) -> float:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        call()
    return float(counter.get_total_flops())


@pytest.mark.parametrize("version", ["0.9.0", "0.9.1", "0.9.5"])
@pytest.mark.parametrize(("frames", "height", "width"), [(1, 512, 768), (97, 512, 768), (121, 704, 1216)])
def test_encoding_images_and_videos(version: str, frames: int, height: int, width: int):
    config = read_config(f"vae-{version}")
    with torch.device("meta"):
        vae: Any = diffusers.AutoencoderKLLTXVideo.from_config(config)
        expected = counted(lambda: vae.encoder(torch.empty(1, 3, frames, height, width)))
    assert encode_image_flops(config, frames, height, width) == pytest.approx(expected, rel=2e-3)


def test_a_video_takes_more_than_twice_what_it_takes_to_decode():
    config = read_config("vae-0.9.5")
    ratio = encode_image_flops(config, 97, 512, 768) / decode_flops(config, 13, 16, 24)
    assert ratio == pytest.approx(2.3, abs=0.1)


@pytest.mark.parametrize(("frames", "height", "width"), [(13, 16, 24), (16, 14, 25)])
def test_upsampling(frames: int, height: int, width: int):
    with torch.device("meta"):
        upsampler: Any = LTXLatentUpsamplerModel(**UPSCALER)
        expected = counted(lambda: upsampler(torch.empty(1, 128, frames, height, width)))
    assert upsample_flops(UPSCALER, frames, height, width) == pytest.approx(expected, rel=2e-3)
