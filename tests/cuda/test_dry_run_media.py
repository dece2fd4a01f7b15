"""Clips from media and of two passes on fake CUDA tensors: every tensor on the right device, of the right dtype."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import tiny
import torch
from diffusers import LTXEulerAncestralRFScheduler
from fake_cuda import CUDA, READS, HostTraffic, fake_cuda, to_cuda
from test_dry_run import without_numbers
from torch.overrides import TorchFunctionMode

from ltx_dist.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ltx_dist.models.family import StageContext, family_of
from ltx_dist.models.ltx_video import long_clips
from ltx_dist.pipeline.conditions import Condition, SecondPass, Windows
from ltx_dist.pipeline.payloads import Conditioning, EncodedMedia, Latents
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import PLAIN

__all__ = ["without_numbers"]

IMAGE = Condition("a.png", "0")
KEYFRAME = Condition("b.png", "1", frame_index=8, strength=0.7)
VIDEO = Condition("a.mp4", "2", is_video=True, num_frames=25)
TWO = SecondPass(64, 96, 2, (909.4, 725.0), 1.0, 1.0, 0.0, 0.15)
REQUEST = RenderRequest(
    "clip", "a prompt", "", 64, 96, 25, 25.0, 2, 3.0, 0.0, 3, 0.05, 0.025, 32, timesteps=(1000.0, 500.0)
)  # fmt: skip
"""A request with timesteps of its own: diffusers' default schedule is made of tensors, whose values it reads."""

LONG = {"windows": Windows(("a", "b", "b"), 40, 24, 0.5, 0.25), "num_frames": 57}
CASES: dict[str, dict[str, Any]] = {
    "image": {"conditions": (IMAGE,)},
    "keyframes": {"conditions": (IMAGE, KEYFRAME)},
    "last frame": {"conditions": (replace(IMAGE, frame_index=24),)},
    "video prefix": {"conditions": (replace(VIDEO, num_frames=9), replace(VIDEO, num_frames=17, frame_index=8))},
    "video to video": {"video": VIDEO, "denoise_strength": 0.5},
    "video to video with an image": {"video": VIDEO, "denoise_strength": 0.5, "conditions": (IMAGE,)},
    "reference": {"reference": VIDEO},
    "reference and image": {"reference": VIDEO, "conditions": (IMAGE,), "guidance_scale": 1.0},
    "long": LONG,
    "long, from an image": LONG | {"conditions": (IMAGE,)},
    "two passes": {"second_pass": TWO, "height": 128, "width": 192},
    "two passes with media": {
        "second_pass": TWO, "height": 128, "width": 192, "conditions": (IMAGE,), "reference": VIDEO,
    },
}  # fmt: skip


class Sigmas(TorchFunctionMode):
    """Numbers for what diffusers' pipeline for long clips reads on the host: the sigmas of steps, an epsilon."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.Tensor.item, torch.Tensor.__float__):
            return 0.5
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def without_numbers_of_long_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces a search for the timestep on the device, and checks for finiteness."""
    monkeypatch.setattr(long_clips, "check_finite", lambda *_: None)
    monkeypatch.setattr(
        LTXEulerAncestralRFScheduler, "_init_step_index", lambda self, timestep: setattr(self, "_step_index", 0)
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("tiny")
    tiny.save_checkpoint(folder / "model", "0.9.5", "LTXConditionPipeline")
    return open_checkpoint(str(folder / "model"), upscaler=str(tiny.save_upscaler(folder / "upscaler")))


def moments(medium: Condition, size: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
    frames = (medium.num_frames - 1) // 8 + 1
    return torch.zeros(1, tiny.LATENT_CHANNELS + 1, frames, size[0] // 32, size[1] // 32, dtype=dtype)


def dry_run(checkpoint: Checkpoint, request: RenderRequest, dtype: torch.dtype = torch.bfloat16) -> Counter[str]:
    """What passed between host and device in the transformer's stages. Raises where tensors do not fit."""
    family, counts = family_of(checkpoint), Counter[str]()
    stages = [family.recipe[name] for name in family.recipe.of(request) if name in ("denoise", "refine")]
    names = {name for stage in stages for name in stage.components}
    modules = {name: family.load_component(name, checkpoint, dtype, PLAIN, torch.device("cpu")) for name in names}
    operations = {
        stage.name: family.operation(stage.operation)(
            {name: modules[name] for name in stage.components}, checkpoint, CUDA, dtype
        )
        for stage in stages
    }
    with fake_cuda() as mode:
        for module in modules.values():
            to_cuda(mode, module)
        channels = torch.zeros(tiny.LATENT_CHANNELS, dtype=dtype)
        rows = len(request.windows.distinct_prompts) if request.windows else 1
        embeds, mask = torch.zeros(rows, 32, tiny.CAPTION_CHANNELS, dtype=dtype), torch.ones(rows, 32, dtype=torch.bool)
        two = request.second_pass
        made: dict[str, Any] = {
            "encode_text": Conditioning(embeds, mask, embeds[:1], mask[:1]),
            "encode_image": EncodedMedia(
                tuple(moments(one, request.first_size, dtype) for one in request.seen),
                tuple(moments(one, request.decoded_size, dtype) for one in request.seen) if two else (),
                moments(request.video, request.first_size, dtype) if request.video else None,
                channels,
                channels,
            ),
        }
        for stage in stages:
            with HostTraffic() as counted, Sigmas() if request.windows else nullcontext():
                (latents,) = operations[stage.name].run([request], [made], StageContext(stage))
            counts += counted.counts
            assert isinstance(latents, Latents) and latents.latents.device.type == "cpu"
            assert latents.latents.dtype == torch.float32
            made[stage.name] = replace(latents, generator_state=torch.Generator("cpu").get_state())
        assert made[stages[-1].name].latents.shape[-2:] == (
            request.decoded_size[0] // 32,
            request.decoded_size[1] // 32,
        )
    return counts


@pytest.mark.parametrize("case", CASES)
def test_every_tensor_is_where_it_belongs(checkpoint: Checkpoint, case: str) -> None:
    dry_run(checkpoint, replace(REQUEST, **CASES[case]))


def test_a_reference_costs_no_copy_in_a_step(checkpoint: Checkpoint) -> None:
    request = replace(REQUEST, reference=VIDEO, image_cond_noise_scale=0.0)
    longer = tuple(1000.0 - 100.0 * step for step in range(6))
    few, many = (
        dry_run(checkpoint, replace(request, timesteps=timesteps, num_inference_steps=len(timesteps)))
        for timesteps in (longer[:2], longer)
    )
    assert few == many and not READS & few.keys()
