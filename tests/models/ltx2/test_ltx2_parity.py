"""The stages of LTX-2.x give the bits of diffusers' monolithic pipelines: frames, waveform and generator state.

The models are tiny ones of 2.0, 2.3 and 2.5 with the real classes, in float32 and bfloat16 (sound always in float32).
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import loras
import monolith_ltx2 as monolith
import numpy as np
import PIL.Image
import pytest
import tiny_ltx2 as tiny
import torch

from ltx_dist.checkpoints.checkpoint import open_checkpoint
from ltx_dist.checkpoints.lora_files import linear_layers, with_loras
from ltx_dist.models.ltx2.decode import Decode
from ltx_dist.models.ltx2.denoise import Denoise
from ltx_dist.models.ltx2.encode_image import EncodeImage
from ltx_dist.models.ltx2.encode_text import EncodeText
from ltx_dist.models.ltx2.load import load_component
from ltx_dist.models.ltx2.refine import Refine
from ltx_dist.pipeline.conditions import Condition, Lora
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import UNTILED, DecodeTiling

CPU = torch.device("cpu")
DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(scope="module", params=tiny.VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(version: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_checkpoint(version, tmp_path_factory.mktemp("tiny") / version)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Condition]:
    """Two images of another shape than the clip, so that cutting and scaling count."""
    folder, found = tmp_path_factory.mktemp("pictures"), []
    for seed in range(2):
        path = folder / f"{seed}.png"
        noise = np.random.default_rng(seed).integers(0, 255, (5, 8, 3), dtype=np.uint8)
        PIL.Image.fromarray(noise).resize((160, 100), PIL.Image.Resampling.BICUBIC).save(path)
        found.append(Condition(str(path), hashlib.sha256(path.read_bytes()).hexdigest(), fit="crop"))
    return found


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def render_stages(
    path: Path, request: RenderRequest, dtype: torch.dtype, tiling: DecodeTiling = UNTILED
) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
    """Frames, waveform and generator state after running one stage after another, each with its own components."""
    checkpoint = with_loras(open_checkpoint(str(path)), [request])
    steps: list[int] = []
    context = SimpleNamespace(on_step=steps.append, tiling=tiling)
    made: dict[str, Any] = {}

    def run(name: str, operation: Any, *components: str) -> None:
        loaded = {part: load_component(part, checkpoint, dtype) for part in components}
        (made[name],) = operation(loaded, checkpoint, CPU, dtype).run([request], [made], context)

    with torch.inference_mode():
        run("encode_text", EncodeText, "text_encoder", "connectors")
        if request.conditions:
            run("encode_image", EncodeImage, "vae_encoder")
        run("denoise", Denoise, "transformer")
        assert steps == list(range(1, request.num_inference_steps + 1))
        if request.second_pass:
            steps.clear()
            run("refine", Refine, "latent_upsampler", "transformer")
            assert steps == list(range(1, request.second_pass.num_steps + 1))
        run("decode", Decode, "vae", "audio_vae", "vocoder")
        clip = made["decode"]
        last = made.get("refine") or made["denoise"]
        return np.stack(list(clip.frames)), clip.sound.waveform, last.generator_state


def check(path: Path, version: str, request: RenderRequest, dtype: torch.dtype) -> None:
    expected = monolith.render(path, request, dtype, cross_timestep=version != "2.0")
    frames, waveform, state = render_stages(path, request, dtype)
    assert np.array_equal(frames, expected.frames)
    assert np.array_equal(waveform, expected.waveform)
    assert torch.equal(state, expected.generator_state)
    assert frames.std() > 1 and waveform.std() > 0.01, "neither is flat, so equality means something"
    assert (abs(waveform) < 1).mean() > 0.9, "nor clipped"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_guided_from_text(folder: Path, version: str, dtype: torch.dtype):
    check(folder, version, tiny.make_request(), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_distilled_in_two_passes(folder: Path, version: str, dtype: torch.dtype):
    check(folder, version, tiny.two_passes(tiny.unguided(tiny.make_request())), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_guided_in_two_passes_with_the_sound_of_the_first(folder: Path, version: str, dtype: torch.dtype):
    request = tiny.two_passes(tiny.make_request(), audio="first", adain_factor=0.5, tone_map_compression_ratio=0.6)
    check(folder, version, request, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_from_a_first_frame_in_one_pass_and_in_two(folder: Path, version: str, dtype: torch.dtype, pictures):
    first = replace(pictures[0], fit="stretch", crf=18)
    check(folder, version, tiny.make_request(conditions=(first,)), dtype)
    check(folder, version, tiny.two_passes(tiny.unguided(tiny.make_request(conditions=(first,)))), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_from_keyframes_in_one_pass_and_in_two(folder: Path, version: str, dtype: torch.dtype, pictures):
    first, second = pictures
    keyframes = (replace(first, crf=33), replace(second, frame_index=9, strength=0.8), replace(first, frame_index=-1))
    check(folder, version, tiny.make_request(conditions=keyframes), dtype)
    check(folder, version, tiny.two_passes(tiny.unguided(tiny.make_request(conditions=keyframes))), dtype)


@pytest.fixture(scope="module")
def two_loras(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Lora, Lora]:
    """A LoRA for the transformer alone, and one in Lightricks' names for the connectors' projection, too."""
    linears = linear_layers(open_checkpoint(str(folder)))
    of_connectors = [name for name in linears if name.startswith("connectors.") and "text_proj_in" in name]
    of_transformer = [name for name in linears if not name.startswith("connectors.")]
    assert of_connectors and any("audio" in name for name in of_transformer)
    style = loras.renamed(loras.make_lora(linears, of_transformer[::3], seed=1), "transformer.")
    distilled = loras.renamed(loras.make_lora(linears, of_transformer, seed=2), "diffusion_model.", official=True)
    for key, tensor in loras.make_lora(linears, of_connectors, seed=3).items():
        official = key.removeprefix("connectors.").replace("text_proj_in", "aggregate_embed")
        distilled[f"text_embedding_projection.{official}"] = tensor
    found = []
    for name, tensors in {"style": style, "distilled": distilled}.items():
        path = loras.save(tmp_path_factory.mktemp("loras") / f"{name}.safetensors", tensors)
        found.append(Lora(str(path), hashlib.sha256(path.read_bytes()).hexdigest(), 0.5))
    return found[0], found[1]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_loras_of_a_clip_and_of_its_second_pass(folder: Path, version: str, dtype: torch.dtype, two_loras):
    style, distilled = two_loras
    check(folder, version, tiny.two_passes(tiny.make_request(loras=(distilled,)), loras=(style,)), dtype)
    both_unguided = tiny.two_passes(tiny.unguided(tiny.make_request()), loras=(distilled,))
    check(folder, version, both_unguided, dtype)
    frames, *_ = render_stages(folder, both_unguided, dtype)
    plain, *_ = render_stages(folder, tiny.two_passes(tiny.unguided(tiny.make_request())), dtype)
    assert not np.array_equal(frames, plain), "the LoRA of the second pass changes it"
