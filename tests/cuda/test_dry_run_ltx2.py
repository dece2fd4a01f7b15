"""LTX-2.x on fake CUDA tensors: text, pictures, both passes, video and sound, each on the right device."""

from __future__ import annotations

import copy
import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from fake_cuda import CUDA, fake_cuda, to_cuda, without_values
from torch._subclasses.fake_tensor import unset_fake_temporarily

from ltx_dist.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ltx_dist.models import frames
from ltx_dist.models.family import family_of
from ltx_dist.models.ltx2 import decode, denoise, stand_ins
from ltx_dist.models.ltx2.stand_ins import _statistics
from ltx_dist.pipeline.conditions import Condition
from ltx_dist.pipeline.payloads import ConnectedText, SoundLatents
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import PLAIN, UNTILED

sys.path.insert(0, str(Path(__file__).parents[1] / "models" / "ltx2"))
import tiny_ltx2 as tiny  # noqa: E402

_preprocess, _noise_scheduler = VaeImageProcessor.preprocess, denoise.Denoiser._noise_scheduler
_all = torch.all

FLOWS = ("text", "first frame", "keyframes", "distilled, two passes", "guided, two passes")


@pytest.fixture(scope="module", params=tiny.VERSIONS)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(str(tiny.make_checkpoint(request.param, tmp_path_factory.mktemp("tiny") / request.param)))


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RenderRequest]:
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    PIL.Image.new("RGB", (96, 64), "red").save(path)
    picture = Condition(str(path), hashlib.sha256(path.read_bytes()).hexdigest(), fit="stretch")
    keyframes = (replace(picture, fit="crop"), replace(picture, fit="crop", frame_index=9, strength=0.8))
    # The requests set sigmas, because diffusers computes its own schedule as tensors and reads their values.
    plain = tiny.make_request()
    guided = replace(plain, sound=replace(tiny.GUIDED, sigmas=(1.0, 0.725)))
    distilled = tiny.unguided(plain)
    made = (
        guided,
        replace(distilled, conditions=(picture,)),
        replace(guided, conditions=keyframes),
        tiny.two_passes(distilled),
        tiny.two_passes(guided, audio="first", adain_factor=0.5, tone_map_compression_ratio=0.6),
    )
    return dict(zip(FLOWS, made, strict=True))


@pytest.fixture(autouse=True)
def without_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces what reads values: frames and sound, which are checked here, and checks for finite numbers."""
    without_values(monkeypatch)
    monkeypatch.setattr(frames, "on_host", on_host)
    for module in (frames, denoise, decode):
        monkeypatch.setattr(module, "check_finite", lambda *_: None)
    monkeypatch.setattr(SoundLatents, "sha256", lambda self: "")
    monkeypatch.setattr(decode.Decode, "_waveform", waveform_on_the_device)
    monkeypatch.setattr(stand_ins, "_statistics", statistics)
    monkeypatch.setattr(VaeImageProcessor, "preprocess", preprocess)
    monkeypatch.setattr(denoise.Denoiser, "_noise_scheduler", noise_scheduler)
    monkeypatch.setattr(copy, "deepcopy", copy.copy)  # the noise scheduler is copied for the sound
    monkeypatch.setattr(torch, "all", all_perturbed)


def all_perturbed(tensor: torch.Tensor, **along: Any) -> torch.Tensor | bool:
    """`torch.all`, but True for the mask of spatio-temporal guidance, whose values the transformer reads: it is on the
    host, has one value per request, and perturbs all of them."""
    is_mask = not along and tensor.device.type == "cpu" and tensor.ndim == 3 and tensor.shape[1:] == (1, 1)
    return is_mask or _all(tensor, **along)


def statistics(folder: Path, component: str, device: torch.device, dtype: torch.dtype) -> list[torch.Tensor]:
    """The statistics with their true shapes, which fake tensors cannot read from a file, on the device."""
    with unset_fake_temporarily():
        read = _statistics(folder, component, torch.device("cpu"), torch.float32)
    return [torch.zeros(tensor.shape).to(device, dtype) for tensor in read]


def preprocess(self: Any, image: Any, height: int, width: int, **more: Any) -> torch.Tensor:
    """Makes pixels on the host, because diffusers reads the smallest one."""
    with unset_fake_temporarily():
        pixels = _preprocess(self, image, height, width, **more)
    return torch.zeros(pixels.shape, dtype=pixels.dtype)


def noise_scheduler(self: Any, settings: Any) -> Any:
    """A scheduler made outside, because it reads its own schedule while it is made."""
    with unset_fake_temporarily():
        return _noise_scheduler(self, settings)


def on_host(group: torch.Tensor) -> np.ndarray:
    assert group.device == CUDA and group.dtype == torch.uint8 and group.is_contiguous()
    return np.empty(tuple(group.shape), np.uint8)


def waveform_on_the_device(self: Any, latents: SoundLatents) -> np.ndarray:
    """The output as the stage makes it, except for its values."""
    samples = latents.audio_latents.to(CUDA, self._audio_vae.dtype)
    waveform = self._vocoder(self._audio_vae.decode(samples, return_dict=False)[0])[0]
    assert waveform.device == CUDA and waveform.dtype == torch.float32
    return np.empty(tuple(waveform.shape), np.float32)


def dry_run(checkpoint: Checkpoint, request: RenderRequest, dtype: torch.dtype = torch.bfloat16) -> set[str]:
    """The stages that ran. Raises if devices or dtypes do not match."""
    family, made = family_of(checkpoint), dict[str, Any]()
    stages = [stage for name in family.recipe.of(request) if (stage := family.recipe[name]).runs_on == "device"]
    names = {name for stage in stages for name in stage.components}
    cpu = torch.device("cpu")
    modules = {name: family.load_component(name, checkpoint, dtype, PLAIN, cpu) for name in names}
    context: Any = SimpleNamespace(on_step=lambda step: None, tiling=UNTILED)
    with fake_cuda() as mode:
        for module in modules.values():
            to_cuda(mode, module)
        for stage in stages:
            parts = {name: modules[name] for name in stage.components}
            operation = family.operation(stage.operation)(parts, checkpoint, CUDA, dtype)
            given = {name: made[name] for name in stage.inputs if name in made}
            (output,) = operation.run([request], [given], context)
            if stage.name == "decode":
                decoded = list(output.frames)
                assert len(decoded) == request.num_frames
                assert {one.shape for one in decoded} == {(request.height, request.width, 3)}
                assert output.sound.waveform.shape[0] == 2
            if isinstance(output, ConnectedText):
                assert {one.device.type for one in (*output.video, *output.audio, *output.mask)} == {"cpu"}
                assert {one.dtype for one in (*output.video, *output.audio)} == {dtype}
            if isinstance(output, SoundLatents):
                assert output.latents.device.type == output.audio_latents.device.type == "cpu"
                assert output.latents.dtype == output.audio_latents.dtype == torch.float32
                output = replace(output, generator_state=torch.Generator("cpu").get_state())
            made[stage.name] = output
    return set(made)


@pytest.mark.parametrize("flow", FLOWS)
def test_every_tensor_is_where_it_belongs(
    checkpoint: Checkpoint, requests: dict[str, RenderRequest], flow: str
) -> None:
    ran = dry_run(checkpoint, requests[flow])
    assert {"encode_text", "denoise", "decode"} <= ran
    assert ("refine" in ran) == ("two passes" in flow)
    assert ("encode_image" in ran) == bool(requests[flow].conditions)
