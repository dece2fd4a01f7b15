"""Long clips have the bits of diffusers' LTXI2VLongMultiPromptPipeline, and exactly the frames that were asked for."""

from __future__ import annotations

from typing import Any

import diffusers
import PIL.Image
import pytest
import tiny
import torch
from diffusers.pipelines.ltx.pipeline_ltx_i2v_long_multi_prompt import split_into_temporal_windows
from oracle import CPU, make_request
from test_conditions import DTYPES, Media, media, one_thread

from ltx_dist.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ltx_dist.estimates.working_sets import denoised_tokens, window_frames
from ltx_dist.models.family import StageContext, family_of
from ltx_dist.pipeline.conditions import Windows, window_places
from ltx_dist.pipeline.payloads import Conditioning, Latents
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import PLAIN

__all__ = ["media", "one_thread"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    return open_checkpoint(str(tiny.save_checkpoint(folder, "0.9.5", "LTXConditionPipeline")))


def long_clip(num_frames: int = 73, last: str = "b", tile: int = 40, **changes: Any) -> RenderRequest:
    """A clip whose first window shows "a" and all others `last`."""
    count = len(window_places(num_frames, tile, 24, 8))
    windows = Windows(("a", *[last] * count)[:count], tile, 24, 0.5, 0.25)
    settings = {"timesteps": (1000.0, 909.4, 421.9), "num_inference_steps": 3, "guidance_scale": 1.0}
    return make_request("clip", prompt="a | b", num_frames=num_frames, windows=windows, **(settings | changes))


def stages(checkpoint: Checkpoint, request: RenderRequest, dtype: torch.dtype) -> dict[str, Any]:
    """What each device stage before decoding makes of the request."""
    family, made, steps = family_of(checkpoint), dict[str, Any](), list[int]()
    for stage in (family.recipe[name] for name in family.recipe.of(request)):
        if stage.name == "decode":
            break
        modules = {name: family.load_component(name, checkpoint, dtype, PLAIN, CPU) for name in stage.components}
        operation = family.operation(stage.operation)(modules, checkpoint, CPU, dtype)
        with torch.inference_mode():
            (made[stage.name],) = operation.run([request], [made], StageContext(stage, steps.append))
    assert steps == list(range(1, request.num_steps + 1))
    return made


def monolith(
    checkpoint: Checkpoint, request: RenderRequest, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Latents of diffusers' own pipeline with its text encoder and VAE, and the state of its generator afterwards."""
    whole: Any = diffusers.LTXConditionPipeline.from_pretrained(checkpoint.path, dtype=dtype)
    scheduler = diffusers.LTXEulerAncestralRFScheduler.from_config(whole.scheduler.config)
    pipeline: Any = diffusers.LTXI2VLongMultiPromptPipeline(**(whole.components | {"scheduler": scheduler}))
    pipeline.set_progress_bar_config(disable=True)
    generator, windows = torch.Generator("cpu").manual_seed(request.seed), request.windows
    assert windows is not None and request.timesteps is not None
    first = request.conditions[0] if request.conditions else None
    image = {} if first is None else {"cond_image": PIL.Image.open(first.place), "cond_strength": first.strength}
    result = pipeline(
        prompt=" | ".join(windows.prompts), negative_prompt=request.negative_prompt, height=request.height,
        width=request.width, num_frames=request.num_frames, frame_rate=request.frame_rate,
        guidance_scale=request.guidance_scale, guidance_rescale=request.guidance_rescale,
        sigmas=[*(round(one / 1000, 4) for one in request.timesteps), 0.0], generator=generator, seed=None,
        temporal_tile_size=windows.temporal_tile_size, temporal_overlap=windows.temporal_overlap,
        temporal_overlap_cond_strength=windows.temporal_overlap_cond_strength, adain_factor=windows.adain_factor,
        max_sequence_length=request.max_sequence_length, output_type="latent", return_dict=False, **image,
    )[0]  # fmt: skip
    return result, generator.get_state()


CASES = {
    "three windows": lambda media: {},
    "one window": lambda media: {"num_frames": 33},
    "guidance": lambda media: {"guidance_scale": 3.0, "guidance_rescale": 0.7},
    "a first frame": lambda media: {"conditions": (media.image(0),)},
    "a weak first frame": lambda media: {"conditions": (media.image(0, strength=0.5),), "num_frames": 65},
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_a_long_clip_is_that_of_diffusers(checkpoint: Checkpoint, media: Media, case: str, dtype: torch.dtype):
    request = long_clip(**CASES[case](media))
    expected, state = monolith(checkpoint, request, dtype)
    latents: Latents = stages(checkpoint, request, dtype)["denoise"]
    assert latents.latents.shape[2] == (request.num_frames - 1) // 8 + 1
    assert torch.equal(latents.latents, expected.float())
    assert torch.equal(latents.generator_state, state)


def test_the_prompt_of_each_window_matters(checkpoint: Checkpoint):
    first, second = (stages(checkpoint, long_clip(last=one), torch.float32)["denoise"].latents for one in "ab")
    changed = [not torch.equal(first[:, :, frame], second[:, :, frame]) for frame in range(first.shape[2])]
    assert changed[-1] and not changed[0]


def test_a_prompt_is_encoded_once_whatever_its_windows(checkpoint: Checkpoint):
    text: Conditioning = stages(checkpoint, long_clip(), torch.float32)["encode_text"]
    assert text.prompt_embeds.shape[0] == text.prompt_attention_mask.shape[0] == 2


@pytest.mark.parametrize("num_frames", [9, 65, 80 * 2 + 1, 361, 489, 1001])
@pytest.mark.parametrize(("tile", "overlap"), [(80, 24), (120, 32), (40, 24)])
def test_windows_are_those_of_diffusers(num_frames: int, tile: int, overlap: int):
    length = (num_frames - 1) // 8 + 1
    expected = split_into_temporal_windows(length, tile // 8, overlap // 8, 8)
    assert window_places(num_frames, tile, overlap, 8) == expected
    # Every window but the first loses its first frame, and overlapping frames count once.
    assert expected[0][1] + sum(end - start - overlap // 8 for start, end in expected[1:]) == length


@pytest.mark.parametrize("num_frames", [361, 489, 1001])
def test_a_clip_has_exactly_its_frames(checkpoint: Checkpoint, num_frames: int):
    request = long_clip(num_frames, tile=80, height=32, width=32, timesteps=(1000.0,), num_inference_steps=1)
    latents: Latents = stages(checkpoint, request, torch.float32)["denoise"]
    assert latents.latents.shape == (1, tiny.LATENT_CHANNELS, (num_frames - 1) // 8 + 1, 1, 1)


def test_memory_and_work_are_of_windows(media: Media):
    request = long_clip(361, conditions=(media.image(0),))
    assert window_frames(request, 8)[:2] == [6, 9] and denoised_tokens(request, (64, 96), (32, 8)) == 9 * 2 * 3
    assert request.num_steps == 3 * len(window_places(361, 40, 24, 8))
