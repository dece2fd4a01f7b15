"""What users of LTX-2.x ask for, as far as no other test shows it. docs/benchmarks.md lists all of it, with tests."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import PIL.Image
import pytest
import tiny_ltx2 as tiny
import torch

from ltx_dist.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ltx_dist.inputs.config import RenderConfig
from ltx_dist.models.ltx2.denoise import Denoiser
from ltx_dist.models.ltx2.encode_image import EncodeImage
from ltx_dist.models.ltx2.encode_text import EncodeText
from ltx_dist.models.ltx2.load import load_component
from ltx_dist.models.ltx2.passes import passes
from ltx_dist.models.ltx2.presets import PRESETS
from ltx_dist.models.ltx2.stand_ins import VideoVae
from ltx_dist.models.ltx_video.tiling import _cut_in_space, decode_in_tiles
from ltx_dist.pipeline.conditions import Condition
from ltx_dist.pipeline.storage import TILE_OVERLAP_FRAMES, TILE_OVERLAP_PIXELS, DecodeTiling
from ltx_dist.placement.fitting import BatchDemand
from ltx_dist.run.batch import open_batch

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
from working_sets import LiveBytes, peak_of  # noqa: E402

CPU = torch.device("cpu")
CONTEXT: Any = SimpleNamespace(on_step=lambda step: None)


@pytest.fixture(scope="module", params=tiny.VERSIONS)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    torch.set_num_threads(1)
    return open_checkpoint(str(tiny.make_checkpoint(request.param, tmp_path_factory.mktemp("tiny") / request.param)))


def load(checkpoint: Checkpoint, *names: str, dtype: torch.dtype = torch.float32) -> dict[str, torch.nn.Module]:
    return {name: load_component(name, checkpoint, dtype) for name in names}


def test_a_second_clip_takes_no_more_memory_than_the_first(checkpoint: Checkpoint) -> None:
    """Requirement 2. Nothing of a clip stays in memory, and no graph for gradients is built."""
    request = tiny.make_request()
    with torch.inference_mode():
        encode = EncodeText(load(checkpoint, "text_encoder", "connectors"), checkpoint, CPU, torch.float32)
        (text,) = encode.run([request], [{}], CONTEXT)
        transformer = load_component("transformer", checkpoint, torch.float32)
        denoiser = Denoiser(transformer, checkpoint, CPU, torch.float32)

        def denoise() -> Any:
            return denoiser.denoise(request, 0, text, (), torch.Generator().manual_seed(5), CONTEXT.on_step)

        assert not denoise().latents.requires_grad
        peaks = [peak_of(denoise) for _ in range(3)]
        left: list[int] = []
        with LiveBytes() as live:
            for _ in range(3):
                denoise()
                left.append(live.now)
    assert peaks[0] == peaks[1] == peaks[2] > 0
    assert left[0] == left[1] == left[2]


def test_sigmas_of_presets_are_used_as_published(checkpoint: Checkpoint) -> None:
    """Requirement 7. Sigmas of distilled weights are not shifted again; others are, once, by diffusers' formula."""
    denoiser = Denoiser(torch.nn.Identity(), checkpoint, CPU, torch.float32)
    for name, preset in PRESETS.items():
        given = preset.settings.get("sigmas")
        if given is None or not name.startswith(checkpoint.generation):
            continue
        (first,) = passes(tiny.make_request(sound=replace(tiny.UNGUIDED, sigmas=given)))
        scheduler = denoiser._noise_scheduler(first)
        scheduler.set_timesteps(sigmas=list(given), mu=5.0)
        assert scheduler.sigmas.tolist() == pytest.approx(
            [1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875, 0.0]
        )
    if checkpoint.distilled:
        return
    (guided,) = passes(tiny.make_request())
    scheduler, mu = denoiser._noise_scheduler(guided), 2.05
    scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25], mu=mu)
    shifted = [math.exp(mu) / (math.exp(mu) + 1 / sigma - 1) for sigma in (1.0, 0.75, 0.5, 0.25)]
    stretched = [1 - (1 - sigma) * 0.9 / (1 - shifted[-1]) for sigma in shifted]  # so that the last one is 0.1
    assert scheduler.sigmas.tolist() == pytest.approx([*stretched, 0.0], abs=1e-6)


def test_a_clip_begins_with_its_image_and_moves(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Requirement 8. The first latent frame is the picture's own, unchanged by any step; those after it differ."""
    path = tmp_path / "picture.png"
    noise = np.random.default_rng(0).integers(0, 255, (5, 8, 3), dtype=np.uint8)
    PIL.Image.fromarray(noise).resize((96, 64), PIL.Image.Resampling.BICUBIC).save(path)
    picture = Condition(str(path), hashlib.sha256(path.read_bytes()).hexdigest(), fit="stretch", crf=18)
    request = tiny.make_request(conditions=(picture,))
    with torch.inference_mode():
        images = EncodeImage(load(checkpoint, "vae_encoder"), checkpoint, CPU, torch.float32)
        (encoded,) = images.run([request], [{}], CONTEXT)
        texts = EncodeText(load(checkpoint, "text_encoder", "connectors"), checkpoint, CPU, torch.float32)
        (text,) = texts.run([request], [{}], CONTEXT)
        denoiser = Denoiser(load_component("transformer", checkpoint, torch.float32), checkpoint, CPU, torch.float32)
        latents = denoiser.denoise(
            request, 0, text, encoded.first, torch.Generator().manual_seed(5), CONTEXT.on_step
        ).latents
    vae = VideoVae(checkpoint, CPU, torch.float32)
    mean, std = (tensor.view(1, -1, 1, 1, 1) for tensor in (vae.latents_mean, vae.latents_std))
    expected = (encoded.first[0] - mean) * vae.config.scaling_factor / std
    assert torch.allclose(latents[:, :, :1], expected, atol=1e-5)
    assert (latents[:, :, 1:] - latents[:, :, :1]).abs().mean() > 0.1


@pytest.mark.parametrize(
    ("tiling", "sides", "strides"),
    [
        (DecodeTiling(128, None), (4, 6), (64, 64)),
        (DecodeTiling(128, 24), (4, 6), (64, 64)),
        (DecodeTiling(160, None), (6, 4), (96, 96)),  # the last column is one latent wide
        (DecodeTiling(160, None), (9, 4), (96, 96)),  # no stride suits both of these sides
    ],
    ids=str,
)
def test_tiles_are_those_of_diffusers(
    checkpoint: Checkpoint, tiling: DecodeTiling, sides: tuple[int, int], strides: tuple[int, int]
) -> None:
    """Requirement 10: where a clip is cut at all, it is cut and blended as diffusers does it.

    Reflection needs two latents. So LTX-2.0 overlaps its tiles by more along a side whose last tile would be of one.
    """
    latents = torch.randn(1, 4, 4, *sides, generator=torch.Generator().manual_seed(0))
    vae: Any = load_component("vae", checkpoint, torch.float32)
    whole: Any = diffusers.AutoencoderKLLTX2Video.from_pretrained(checkpoint.folder("vae"))
    if whole.config.decoder_spatial_padding_mode == "reflect":
        strides = {(6, 4): (96, 64), (9, 4): (96, 64)}.get(sides, strides)
    size, frames = tiling.tile_size, tiling.tile_frames or 1 << 20
    whole.enable_tiling(size, size, frames, *strides, frames - TILE_OVERLAP_FRAMES)
    whole.use_framewise_decoding = True
    with torch.inference_mode():
        expected = whole.decode(latents, None, return_dict=False)[0]
        pieces = list(decode_in_tiles(vae, latents, None, tiling))
    assert torch.equal(torch.cat(pieces, dim=2), expected)
    assert (len(pieces) > 1) == (tiling.tile_frames is not None)


@pytest.mark.parametrize("tile_size", [256, 288, 320])
def test_clips_of_all_sizes_are_cut_without_a_tile_of_one_latent(checkpoint: Checkpoint, tile_size: int) -> None:
    """Sizes of 256x256 to 1408x2176, whose sides are cut independently of each other.

    Only 2.0 cannot decode a tile of one latent; the others overlap their tiles as usual.
    """
    vae: Any = load_component("vae", checkpoint, torch.float32)
    reflects = vae.config.decoder_spatial_padding_mode == "reflect"
    usual = (tile_size - TILE_OVERLAP_PIXELS) // 32
    for sides in itertools.product(range(8, 45), range(8, 69)):
        _cut_in_space(vae, tile_size, sides)
        assert vae.use_tiling == (max(sides) * 32 > tile_size)
        if not vae.use_tiling:
            continue
        strides = (vae.tile_sample_stride_height // 32, vae.tile_sample_stride_width // 32)
        if not reflects:
            assert strides == (usual, usual)
            continue
        for side, stride in zip(sides, strides, strict=True):
            assert side - range(0, side, stride)[-1] > 1, sides
            assert stride <= usual or (
                stride < tile_size // 32 and all((side - 1) % n == 0 for n in range(2, usual + 1))
            )


def test_small_tiles_that_leave_one_latent_are_refused(checkpoint: Checkpoint) -> None:
    vae: Any = load_component("vae", checkpoint, torch.float32)
    if vae.config.decoder_spatial_padding_mode != "reflect":
        _cut_in_space(vae, 128, (13, 6))
        assert vae.use_tiling
        return
    with pytest.raises(ValueError, match=r"decode\.tile_size: 128 cuts 416 px .* use 256 or more"):
        _cut_in_space(vae, 128, (13, 6))


@pytest.mark.parametrize("checkpoint", ["2.0"], indirect=True)
def test_small_tiles_that_leave_one_latent_are_refused_before_anything_is_rendered(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.jsonl"

    def demand(width: int, tile_size: int | str) -> BatchDemand:
        row = {"prompt": "a", "height": 192, "width": width, "num_frames": 9}
        prompts.write_text(json.dumps(row | {"width": 256}) + "\n" + json.dumps(row))
        settings = {"model": {"checkpoint": checkpoint.name}, "decode": {"tile_size": tile_size}}
        return open_batch(str(prompts), RenderConfig.model_validate(settings)).demand("float32")

    with pytest.raises(ValueError, match=r"^decode\.tile_size: 128 cuts 416 px .* use 256 or more"):
        demand(416, 128)
    assert demand(384, 128).tilings[0].tile_size == 128
    assert demand(416, 256).tilings[0].tile_size == 256
    assert len(demand(416, "auto").tilings) > 1


def test_sound_is_computed_in_float32_beside_a_model_in_bfloat16(checkpoint: Checkpoint) -> None:
    """Requirement 11."""
    for name, module in load(checkpoint, "audio_vae", "vocoder", "vae", dtype=torch.bfloat16).items():
        dtypes = {tensor.dtype for tensor in module.state_dict().values() if tensor.is_floating_point()}
        assert dtypes == ({torch.bfloat16} if name == "vae" else {torch.float32}), name
