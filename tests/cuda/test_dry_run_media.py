"""Clips from media, in two passes, in windows and with LoRAs on fake CUDA tensors, with the right devices and dtypes.

All cases run the transformer's stages. A few, which together have everything that the other stages can do, run every
stage.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import loras
import numpy as np
import PIL.Image
import pytest
import tiny
import torch
from diffusers import LTXEulerAncestralRFScheduler
from diffusers.image_processor import VaeImageProcessor
from fake_cuda import CUDA, READS, HostTraffic, fake_cuda, to_cuda
from test_dry_run import KINDS, Unhashed, without_numbers
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.overrides import TorchFunctionMode

from ltx_dist.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ltx_dist.checkpoints.lora_files import linear_layers
from ltx_dist.models.family import StageContext, family_of
from ltx_dist.models.ltx_video import encode_image, long_clips
from ltx_dist.pipeline.conditions import Condition, Lora, SecondPass, Windows
from ltx_dist.pipeline.payloads import Conditioning, EncodedMedia, Latents
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import PLAIN, Storage

__all__ = ["without_numbers"]

TWO = SecondPass(64, 96, 2, (909.4, 725.0), 1.0, 1.0, 0.0, 0.15)
REQUEST = RenderRequest(
    "clip", "a prompt", "", 64, 96, 25, 25.0, 2, 3.0, 0.0, 3, 0.05, 0.025, 32, timesteps=(1000.0, 500.0)
)  # fmt: skip
"""A request that sets timesteps, because diffusers computes its default ones as tensors and reads their values."""


@dataclass(frozen=True)
class Files:
    """A picture, a video of 25 frames, and two LoRAs."""

    image: Condition
    video: Condition
    loras: tuple[Lora, Lora]


TWO_PASSES: dict[str, Any] = {"second_pass": TWO, "height": 128, "width": 192}
LONG: dict[str, Any] = {"windows": Windows(("a", "b", "b"), 40, 24, 0.5, 0.25), "num_frames": 57}
CASES: dict[str, Any] = {
    "image": lambda files: {"conditions": (files.image,)},
    "keyframes": lambda files: {"conditions": (files.image, replace(files.image, frame_index=8, strength=0.7))},
    "last frame": lambda files: {"conditions": (replace(files.image, frame_index=24),)},
    "video prefix": lambda files: {
        "conditions": (replace(files.video, num_frames=9), replace(files.video, num_frames=17, frame_index=8))
    },
    "video to video": lambda files: {"video": files.video, "denoise_strength": 0.5},
    "video to video with an image": lambda files: {
        "video": files.video, "denoise_strength": 0.5, "conditions": (files.image,),
    },
    "LoRAs": lambda files: {"loras": files.loras},
    "IC-LoRA": lambda files: {"reference": files.video, "loras": files.loras[:1]},
    "IC-LoRA and image": lambda files: {
        "reference": files.video, "loras": files.loras[:1], "conditions": (files.image,), "guidance_scale": 1.0,
    },
    "long": lambda files: LONG,
    "long, from an image, with a LoRA": lambda files: LONG | {"conditions": (files.image,), "loras": files.loras[1:]},
    "two passes": lambda files: TWO_PASSES,
    "two passes with guidance in both": lambda files: TWO_PASSES | {
        "second_pass": replace(TWO, guidance_scale=3.0, guidance_rescale=0.7, adain_factor=0.0)
    },
    "two passes, tone mapped between them": lambda files: TWO_PASSES | {
        "second_pass": replace(TWO, tone_map_compression_ratio=0.6, tone_map_at="upsample")
    },
    "two passes with media and LoRAs": lambda files: TWO_PASSES | {
        "conditions": (files.image,), "reference": files.video, "loras": files.loras,
    },
}  # fmt: skip
WHOLE: dict[str, Any] = {
    "official image, two passes, tone mapped before decoding, scaled": lambda files: TWO_PASSES | {
        "conditions": (replace(files.image, preprocess="official", crf=29, blur=True),), "height": 96, "width": 160,
        "second_pass": replace(TWO, tone_map_compression_ratio=0.6, tone_map_at="decode"),
    },
    "video to video with an IC-LoRA": lambda files: {
        "video": files.video, "denoise_strength": 0.5, "reference": files.video, "loras": files.loras[:1],
    },
    "long, from an image": lambda files: LONG | {"conditions": (files.image,)},
}  # fmt: skip


class Sigmas(TorchFunctionMode):
    """Gives values to what diffusers' pipeline for long clips reads on the host: sigmas of steps, and an epsilon."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.Tensor.item, torch.Tensor.__float__):
            return 0.5
        return func(*args, **(kwargs or {}))


_preprocess, _official_pixels = VaeImageProcessor.preprocess, encode_image.official_pixels


def preprocess(self: Any, image: Any, height: int, width: int, **more: Any) -> torch.Tensor:
    """Makes pixels on the host, because diffusers reads the smallest one."""
    with unset_fake_temporarily():
        pixels = _preprocess(self, image, height, width, **more)
    return torch.zeros(pixels.shape, dtype=pixels.dtype)


def official_pixels(*arguments: Any) -> torch.Tensor:
    """Pixels on the host, compressed by a video encoder."""
    with unset_fake_temporarily():
        pixels = _official_pixels(*arguments)
    return torch.zeros(pixels.shape, dtype=pixels.dtype)


@pytest.fixture(autouse=True)
def without_numbers_of_media(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces pixels, a search for the timestep on the device, and checks for finite numbers."""
    monkeypatch.setattr(VaeImageProcessor, "preprocess", preprocess)
    monkeypatch.setattr(encode_image, "official_pixels", official_pixels)
    monkeypatch.setattr(long_clips, "check_finite", lambda *_: None)
    monkeypatch.setattr(
        LTXEulerAncestralRFScheduler, "_init_step_index", lambda self, timestep: setattr(self, "_step_index", 0)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="module")
def files(folder: Path) -> Files:
    PIL.Image.new("RGB", (100, 60), "red").save(folder / "a.png")
    with av.open(str(folder / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for _ in range(25):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 96, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    linears = linear_layers(open_checkpoint(str(tiny.save_checkpoint(folder / "plain", *KINDS["conditions"]))))
    for seed, name in enumerate(("a", "b")):
        loras.save(folder / f"{name}.safetensors", loras.renamed(loras.make_lora(linears, seed=seed), "transformer."))
    image, video, first, second = (
        (str(folder / name), hashlib.sha256((folder / name).read_bytes()).hexdigest())
        for name in ("a.png", "a.mp4", "a.safetensors", "b.safetensors")
    )
    video = Condition(*video, is_video=True, num_frames=25)
    return Files(Condition(*image), video, (Lora(*first), Lora(*second, weight=0.5)))


@pytest.fixture(scope="module")
def checkpoint(folder: Path, files: Files) -> Checkpoint:
    opened = open_checkpoint(str(folder / "plain"), upscaler=str(tiny.save_upscaler(folder / "upscaler")))
    return replace(opened, loras=files.loras)


def dry_run(
    checkpoint: Checkpoint,
    request: RenderRequest,
    dtype: torch.dtype = torch.bfloat16,
    storage: Storage = PLAIN,
    whole: bool = False,
) -> Mapping[str, Counter[str]]:
    """What was copied between host and device, by stage. Raises if devices or dtypes do not match.

    whole: run every stage, and not only the transformer's on made-up outputs of the others.
    """
    family, traffic = family_of(checkpoint), dict[str, Counter[str]]()
    of_device = [stage for name in family.recipe.of(request) if (stage := family.recipe[name]).runs_on == "device"]
    stages = [stage for stage in of_device if whole or "transformer" in stage.components]
    names = {name for stage in stages for name in stage.components}
    modules = {name: family.load_component(name, checkpoint, dtype, storage, torch.device("cpu")) for name in names}
    operations = {
        stage.name: family.operation(stage.operation)(
            {name: modules[name] for name in stage.components}, checkpoint, CUDA, dtype
        )
        for stage in stages
    }
    with fake_cuda() as mode:
        made = {} if whole else _given(request, dtype)
        for module in modules.values():
            to_cuda(mode, module)
        for stage in stages:
            given = {name: made[name] for name in stage.inputs if name in made}
            with HostTraffic() as counted, Sigmas() if request.windows else nullcontext():
                (output,) = operations[stage.name].run([request], [given], StageContext(stage))
                made[stage.name] = list(output.frames) if stage.name == "decode" else _checked(output, dtype, request)
            traffic[stage.name] = counted.counts
    latents = made["refine" if request.second_pass else "denoise"].latents
    assert latents.shape[-2:] == (request.decoded_size[0] // 32, request.decoded_size[1] // 32)
    if whole:
        assert len(made["decode"]) == request.num_frames
        assert {frame.shape for frame in made["decode"]} == {(request.height, request.width, 3)}
    return traffic


def _given(request: RenderRequest, dtype: torch.dtype) -> dict[str, Any]:
    """What encode_text and encode_image make."""
    rows = len(request.windows.distinct_prompts) if request.windows else 1
    embeds, mask = torch.zeros(rows, 32, tiny.CAPTION_CHANNELS, dtype=dtype), torch.ones(rows, 32, dtype=torch.bool)
    channels = torch.zeros(tiny.LATENT_CHANNELS, dtype=dtype)

    def moments(medium: Condition, size: tuple[int, int]) -> torch.Tensor:
        frames = (medium.num_frames - 1) // 8 + 1
        return torch.zeros(1, tiny.LATENT_CHANNELS + 1, frames, size[0] // 32, size[1] // 32, dtype=dtype)

    media = EncodedMedia(
        tuple(moments(one, request.first_size) for one in request.seen),
        tuple(moments(one, request.decoded_size) for one in request.seen) if request.second_pass else (),
        moments(request.video, request.first_size) if request.video else None,
        channels,
        channels,
    )
    text = {"encode_text": Conditioning(embeds, mask, embeds[:1], mask[:1])}
    return text | ({"encode_image": media} if request.has_media else {})


def _checked(output: Any, dtype: torch.dtype, request: RenderRequest) -> Any:
    """What a stage hands on, on the host, and with real values where the next stage's draws depend on them."""
    if isinstance(output, Conditioning):
        assert output.prompt_embeds.device.type == "cpu" and output.prompt_embeds.dtype == dtype
        assert output.prompt_embeds.shape[0] == (len(request.windows.distinct_prompts) if request.windows else 1)
    elif isinstance(output, EncodedMedia):
        moments = [*output.seen, *output.refined, *([output.video] if output.video is not None else [])]
        assert len(moments) == len(request.seen) * (2 if request.second_pass else 1) + bool(request.video)
        assert {one.device.type for one in moments} == {"cpu"}
    else:
        assert isinstance(output, Latents) and output.latents.device.type == "cpu"
        assert output.latents.dtype == torch.float32
        return Unhashed(replace(output, generator_state=torch.Generator("cpu").get_state()))
    return output


@pytest.mark.parametrize("case", CASES)
def test_every_tensor_is_where_it_belongs(checkpoint: Checkpoint, files: Files, case: str) -> None:
    dry_run(checkpoint, replace(REQUEST, **CASES[case](files)))


@pytest.mark.parametrize("case", ["LoRAs", "two passes with media and LoRAs"])
def test_loras_stay_in_16_bit_beside_weights_in_8(checkpoint: Checkpoint, files: Files, case: str) -> None:
    dry_run(checkpoint, replace(REQUEST, **CASES[case](files)), storage=Storage("float8"))


@pytest.mark.parametrize("case", WHOLE)
def test_every_stage_hands_on_what_the_next_one_takes(checkpoint: Checkpoint, files: Files, case: str) -> None:
    request = replace(REQUEST, **WHOLE[case](files))
    assert {"encode_text", "encode_image", "decode"} <= dry_run(checkpoint, request, whole=True).keys()


@pytest.mark.parametrize("version", ["0.9.0", "0.9.1"])
def test_an_image_begins_a_clip_of_older_versions(folder: Path, files: Files, version: str) -> None:
    checkpoint = open_checkpoint(str(tiny.save_checkpoint(folder / version, *KINDS[version])))
    dry_run(checkpoint, replace(REQUEST, timesteps=None, conditions=(files.image,)))


def test_a_reference_costs_no_copy_in_a_step(checkpoint: Checkpoint, files: Files) -> None:
    request = replace(REQUEST, reference=files.video, image_cond_noise_scale=0.0)
    longer = tuple(1000.0 - 100.0 * step for step in range(6))
    few, many = (
        dry_run(checkpoint, replace(request, timesteps=timesteps, num_inference_steps=len(timesteps)))["denoise"]
        for timesteps in (longer[:2], longer)
    )
    assert few == many and not READS & few.keys()
