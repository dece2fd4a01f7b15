"""A batch of clips from text, images and videos, in two passes, in windows and with LoRAs, as users render it.

Every clip has the latents that diffusers' own pipelines make, in one process and on Ray, whatever ran beside it.
diffusers has no pipeline for IC-LoRAs; tests/models/ltx_video/test_in_context.py has an oracle for them. Here, the clip
with an IC-LoRA is compared with the same clip in one process.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av
import diffusers
import loras
import numpy as np
import PIL.Image
import pytest
import tiny
import torch
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from typer.testing import CliRunner, Result

from ltx_dist.checkpoints.checkpoint import open_checkpoint
from ltx_dist.checkpoints.lora_files import linear_layers
from ltx_dist.cli import app
from ltx_dist.inputs.config import RenderConfig
from ltx_dist.media.video_in import read_frames
from ltx_dist.models.ltx_video.denoise import Denoise
from ltx_dist.models.ltx_video.refine import Refine
from ltx_dist.report.copied_command import copied_command
from ltx_dist.run.batch import open_batch

SIZE = {"height": 64, "width": 96, "num_frames": 9}
TWO = {"second_pass": {"timesteps": [909.4, 725.0], "downscale_factor": 0.5}, "height": 128, "width": 192}
ROWS: list[dict[str, Any]] = [
    {"name": "text"},
    {"name": "image", "image": "a.png"},
    {"name": "last", "conditions": [{"image": "b.png", "frame_index": -1, "strength": 0.8}]},
    {
        "name": "keyframes",
        "conditions": [{"image": "a.png"}, {"image": "b.png", "frame_index": 4, "strength": 0.6}],
    },
    {"name": "loop", "conditions": [{"image": "a.png"}, {"image": "a.png", "frame_index": -1}]},
    {"name": "prefix", "conditions": [{"video": "video.mp4"}], "image_cond_noise_scale": 0.0},
    {"name": "edited", "video": "video.mp4", "denoise_strength": 0.67},
    {"name": "edited-image", "video": "video.mp4", "denoise_strength": 0.67, "image": "a.png"},
    {"name": "two", **TWO},
    {"name": "two-image", "image": "a.png", **TWO},
    {"name": "styled", "loras": ["style.safetensors"]},
    {"name": "mixed", "image": "a.png", "loras": [{"path": "other.safetensors", "weight": 0.5}, "style.safetensors"]},
    {"name": "controlled", "reference": "video.mp4", "loras": ["style.safetensors"], "guidance_scale": 1.0},
    {
        "name": "long", "prompt": "one | two", "image": "a.png", "num_frames": 49, "timesteps": [1000.0, 500.0],
        "guidance_scale": 1.0, "windows": {"temporal_tile_size": 32},
    },
]  # fmt: skip
IN_CONTEXT = {"controlled"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, an upscaler, pictures, a video, LoRAs and the rows."""
    folder = tmp_path_factory.mktemp("media")
    tiny.save_checkpoint(folder / "model", "0.9.5", "LTXConditionPipeline")
    tiny.save_official_upscaler(folder / "upscaler.safetensors")
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        PIL.Image.fromarray(random.integers(0, 255, (64, 96, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    with av.open(str(folder / "video.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for _ in range(9):
            pixels = np.kron(random.integers(0, 255, (8, 12, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    linears = linear_layers(open_checkpoint(str(folder / "model")))
    loras.save(folder / "style.safetensors", loras.renamed(loras.make_lora(linears, seed=1), "diffusion_model."))
    loras.save(folder / "other.safetensors", loras.renamed(loras.make_lora(linears, rank=2, seed=2), "transformer."))
    (folder / "rows.jsonl").write_text("\n".join(json.dumps({"prompt": f"clip {i}", **r}) for i, r in enumerate(ROWS)))
    return folder


def command(name: str, folder: Path, *arguments: str | Path, upscaler: bool = True) -> list[str]:
    settings = {
        "model.checkpoint": folder / "model", "defaults.height": 64, "defaults.width": 96, "defaults.num_frames": 9,
        "defaults.num_inference_steps": 3, "placement.threads": 1, "output.preset": "ultrafast",
    } | ({"model.upscaler": folder / "upscaler.safetensors"} if upscaler else {})  # fmt: skip
    set_all = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    return [name, str(folder / "rows.jsonl"), *map(str, arguments), *set_all]


def run(name: str, folder: Path, *arguments: str | Path, upscaler: bool = True) -> Result:
    return CliRunner().invoke(app, command(name, folder, *arguments, upscaler=upscaler))


def sidecars(out: Path) -> dict[str, dict[str, Any]]:
    return {row["name"]: json.loads((out / f"{row['name']}.json").read_text()) for row in ROWS}


@pytest.fixture(scope="module")
def rendered(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    out = tmp_path_factory.mktemp("out")
    result = run("render", folder, "-o", out)
    assert result.exit_code == 0, result.output
    return sidecars(out)


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, str]:
    return latents_of_diffusers(folder, torch.float32)


BFLOAT16 = {"model.precision": "bfloat16"}


@pytest.fixture(scope="module")
def in_bfloat16(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Sidecars of the batch, rendered by one worker whose components take turns."""
    out = tmp_path_factory.mktemp("out")
    turns = {"placement.layout": "shared", "placement.residency": "time_sliced"} | BFLOAT16
    result = run("render", folder, "-o", out, *options(turns))
    assert result.exit_code == 0, result.output
    return sidecars(out)


def options(settings: dict[str, Any]) -> list[str]:
    return [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]


def latents_of_diffusers(folder: Path, dtype: torch.dtype) -> dict[str, str]:
    """sha256 of the latents that diffusers makes of each row for which it has a pipeline."""
    torch.set_num_threads(1)
    pipeline: Any = diffusers.LTXConditionPipeline.from_pretrained(folder / "model", torch_dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    # A user of diffusers whose files have these keys would have to rename them, too.
    linears = linear_layers(open_checkpoint(str(folder / "model")))
    for name, tensors in {
        "style": loras.make_lora(linears, seed=1),
        "other": loras.make_lora(linears, rank=2, seed=2),
    }.items():
        state = {key: tensor.to(dtype) for key, tensor in loras.renamed(tensors, "transformer.").items()}
        pipeline.load_lora_weights(state, adapter_name=name)
    upsampler: Any = LTXLatentUpsamplerModel(in_channels=tiny.LATENT_CHANNELS, mid_channels=32, num_blocks_per_stage=1)
    with torch.device("cpu"):
        from safetensors.torch import load_file

        upsampler.load_state_dict(load_file(folder / "upscaler.safetensors"))
    upsampler = upsampler.to(dtype).eval()
    upsampling = diffusers.LTXLatentUpsamplePipeline(vae=pipeline.vae, latent_upsampler=upsampler)
    with torch.no_grad():
        found = {
            row["name"]: (long_monolith if "windows" in row else monolith)(pipeline, upsampling, folder, i, row)
            for i, row in enumerate(ROWS)
            if row["name"] not in IN_CONTEXT
        }
    return {
        name: hashlib.sha256(latents.float().contiguous().numpy().tobytes()).hexdigest()
        for name, latents in found.items()
    }


def monolith(pipeline: Any, upsampling: Any, folder: Path, position: int, row: dict[str, Any]) -> torch.Tensor:
    generator = torch.Generator("cpu").manual_seed(position)
    frames = list(read_frames(folder / "video.mp4", 0, 9))
    conditions = [LTXVideoCondition(image=PIL.Image.open(folder / row["image"]))] if "image" in row else []
    for one in row.get("conditions", ()):
        image = PIL.Image.open(folder / one["image"]) if "image" in one else None
        index = 8 if one.get("frame_index") == -1 else one.get("frame_index", 0)
        video = None if image else frames
        conditions.append(LTXVideoCondition(image, video, index, one.get("strength", 1.0)))
    weights = {"styled": {"style": 1.0}, "mixed": {"other": 0.5, "style": 1.0}}.get(row["name"], {})
    if weights:
        pipeline.enable_lora()
        pipeline.set_adapters(list(weights), list(weights.values()))
    else:
        pipeline.disable_lora()
    latents = None
    if "video" in row:
        pixels = pipeline.video_processor.preprocess_video(frames, 64, 96)
        latents = upsampling.prepare_latents(
            pixels, dtype=torch.float32, device=torch.device("cpu"), generator=generator
        )
    shared = {
        "prompt": f"clip {position}", "negative_prompt": "", "num_frames": 9, "frame_rate": 25.0,
        "generator": generator,
        "guidance_scale": 3.0, "image_cond_noise_scale": row.get("image_cond_noise_scale", 0.15),
        "conditions": conditions or None, "output_type": "latent", "return_dict": False,
    }  # fmt: skip
    (made,) = pipeline(
        height=64, width=96, num_inference_steps=3, latents=latents, denoise_strength=row.get("denoise_strength", 1.0),
        **shared,
    )  # fmt: skip
    if "second_pass" in row:
        (upsampled,) = upsampling(latents=made, adain_factor=1.0, output_type="latent", return_dict=False)
        (made,) = pipeline(
            height=128, width=192, latents=upsampled, timesteps=[1000.0, 909.4, 725.0], num_inference_steps=3,
            denoise_strength=0.7, **shared,
        )  # fmt: skip
    return made


def long_monolith(pipeline: Any, _: Any, folder: Path, position: int, row: dict[str, Any]) -> torch.Tensor:
    pipeline.disable_lora()
    scheduler = diffusers.LTXEulerAncestralRFScheduler.from_config(pipeline.scheduler.config)
    windowed: Any = diffusers.LTXI2VLongMultiPromptPipeline(**(pipeline.components | {"scheduler": scheduler}))
    windowed.set_progress_bar_config(disable=True)
    return windowed(
        prompt=row["prompt"], negative_prompt="", height=64, width=96, num_frames=row["num_frames"], frame_rate=25.0,
        guidance_scale=1.0, sigmas=[1.0, 0.5, 0.0], generator=torch.Generator("cpu").manual_seed(position), seed=None,
        cond_image=PIL.Image.open(folder / row["image"]), cond_strength=1.0, output_type="latent", return_dict=False,
        temporal_tile_size=32, temporal_overlap=24, temporal_overlap_cond_strength=0.5, adain_factor=0.25,
        max_sequence_length=256,
    )[0]  # fmt: skip


@pytest.mark.parametrize("name", [row["name"] for row in ROWS if row["name"] not in IN_CONTEXT])
def test_a_clip_of_a_mixed_batch_is_that_of_diffusers(
    rendered: dict[str, dict[str, Any]], expected: dict[str, str], name: str
):
    assert rendered[name]["latents_sha256"] == expected[name]


def test_all_clips_differ(rendered: dict[str, dict[str, Any]]):
    assert len({sidecar["frames_sha256"] for sidecar in rendered.values()}) == len(ROWS)


def test_sidecars_hold_what_a_clip_was_made_from(rendered: dict[str, dict[str, Any]], folder: Path):
    request = rendered["two-image"]["request"]
    digest = hashlib.sha256((folder / "a.png").read_bytes()).hexdigest()
    assert request["conditions"][0]["sha256"] == digest and request["conditions"][0]["place"] == str(folder / "a.png")
    assert request["second_pass"]["timesteps"] == [909.4, 725.0] and request["second_pass"]["adain_factor"] == 1.0
    assert rendered["mixed"]["request"]["loras"][0]["weight"] == 0.5
    assert set(rendered["two"]["stages"]) >= {"encode_text", "denoise", "refine", "decode"}
    assert "encode_image" in rendered["image"]["stages"] and "encode_image" not in rendered["text"]["stages"]
    assert "latent_upsampler" in rendered["text"]["checkpoint"]["sha256"]


def test_the_copied_commands_ask_for_the_same_clips(rendered: dict[str, dict[str, Any]], folder: Path, tmp_path: Path):
    """The rows of all commands give the requests that the sidecars record, and so the same pixels."""
    commands = [shlex.split(copied_command(one["request"], one["settings"])) for one in rendered.values()]
    (tmp_path / "rows.jsonl").write_text("\n".join(command[2] for command in commands))
    config = RenderConfig.model_validate(
        {"model": {"checkpoint": str(folder / "model"), "upscaler": str(folder / "upscaler.safetensors")}}
    )
    again = open_batch(str(tmp_path / "rows.jsonl"), config).requests
    assert [json.loads(json.dumps(asdict(one))) for one in again] == [one["request"] for one in rendered.values()]


def test_a_second_render_makes_nothing_again(folder: Path, tmp_path: Path):
    assert run("render", folder, "-o", tmp_path / "out").exit_code == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.mp4")}
    again = run("render", folder, "-o", tmp_path / "out")
    assert again.exit_code == 0, again.output
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.mp4")} == before
    changed = tmp_path / "changed"
    shutil.copytree(folder, changed)
    shutil.copy(folder / "b.png", changed / "a.png")
    assert run("render", changed, "-o", tmp_path / "out").exit_code == 0
    after = {path.stem: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.mp4")}
    made_again = {path.stem for path, time in before.items() if after[path.stem] != time}
    assert made_again == {"image", "keyframes", "loop", "edited-image", "two-image", "mixed", "long"}, (
        "what a changed picture was in, and no more"
    )


def test_an_upscaler_is_no_part_of_clips_of_one_pass(rendered: dict[str, dict[str, Any]], folder: Path, tmp_path: Path):
    plain = tmp_path / "plain"
    shutil.copytree(folder, plain)
    (plain / "rows.jsonl").write_text(json.dumps({"prompt": "clip 0", "name": "text"}))
    result = run("render", plain, "-o", tmp_path / "out", upscaler=False)
    assert result.exit_code == 0, result.output
    again = json.loads((tmp_path / "out" / "text.json").read_text())
    assert again["render_key"] == rendered["text"]["render_key"]


@pytest.mark.parametrize(
    "settings",
    [
        {"placement.layout": "pinned", "placement.devices": 3},
        {"placement.layout": "replicated", "placement.devices": 2},
        {"placement.layout": "shared", "placement.residency": "time_sliced"},
    ],
    ids=str,
)
def test_layouts_give_the_same_clips(
    rendered: dict[str, dict[str, Any]], folder: Path, tmp_path: Path, settings: dict[str, Any]
):
    render_elsewhere(folder, tmp_path / "out", settings)
    same = {name: sidecar["frames_sha256"] for name, sidecar in sidecars(tmp_path / "out").items()}
    assert same == {name: sidecar["frames_sha256"] for name, sidecar in rendered.items()}


def render_elsewhere(folder: Path, out: Path, settings: dict[str, Any], python_path: Path | None = None) -> None:
    """Runs in a process of its own, since a process that has a Ray cluster cannot start another."""
    paths = os.pathsep.join([*([str(python_path)] if python_path else []), os.environ["PYTHONPATH"]])
    result = subprocess.run(
        [sys.executable, "-m", "ltx_dist.cli", *command("render", folder, "-o", out, *options(settings))],
        capture_output=True, text=True, timeout=600, check=False, env=os.environ | {"PYTHONPATH": paths},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr


def test_clips_in_bfloat16_are_those_of_diffusers(in_bfloat16: dict[str, dict[str, Any]], folder: Path):
    made = {name: one["latents_sha256"] for name, one in in_bfloat16.items() if name not in IN_CONTEXT}
    assert made == latents_of_diffusers(folder, torch.bfloat16)


@pytest.mark.parametrize(("layout", "devices"), [("pinned", 3), ("replicated", 2)])
def test_actors_give_the_same_clips_in_bfloat16(
    in_bfloat16: dict[str, dict[str, Any]], folder: Path, tmp_path: Path, layout: str, devices: int
):
    render_elsewhere(folder, tmp_path / "out", {"placement.layout": layout, "placement.devices": devices} | BFLOAT16)
    for same in ("latents_sha256", "frames_sha256"):
        made = {name: sidecar[same] for name, sidecar in sidecars(tmp_path / "out").items()}
        assert made == {name: sidecar[same] for name, sidecar in in_bfloat16.items()}, same


def test_a_second_pass_that_is_interrupted_does_not_repeat_the_first(
    rendered: dict[str, dict[str, Any]], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    only = just(folder, tmp_path, "two-image")
    with monkeypatch.context() as patched:
        patched.setattr(Refine, "run", raising("the second pass is cut off"))
        assert run("render", only, "-o", tmp_path / "out").exit_code == 3
    monkeypatch.setattr(Denoise, "run", raising("the first pass is made already"))
    result = run("render", only, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    again = json.loads((tmp_path / "out" / "two-image.json").read_text())
    for same in ("latents_sha256", "frames_sha256", "render_key"):
        assert again[same] == rendered["two-image"][same], same


def test_a_clip_of_two_passes_is_decoded_again(
    rendered: dict[str, dict[str, Any]], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It is decoded from the latents of its second pass, at its own size, which is not that of the first pass."""
    only, out = just(folder, tmp_path, "two-image"), tmp_path / "out"
    assert run("render", only, "-o", out, "--keep-latents").exit_code == 0
    for stage in (Denoise, Refine):
        monkeypatch.setattr(stage, "run", raising("only the VAE is needed"))
    result = CliRunner().invoke(app, ["decode", str(out), "--set", "output.crf=35"])
    assert result.exit_code == 0, result.output
    after = json.loads((out / "two-image.json").read_text())
    for same in ("latents_sha256", "frames_sha256", "request"):
        assert after[same] == rendered["two-image"][same], same
    assert after["mp4_sha256"] != rendered["two-image"]["mp4_sha256"]
    assert [worker["stages"] for worker in json.loads((out / "run.json").read_text())["workers"]] == [["decode"]]


def just(folder: Path, tmp_path: Path, name: str) -> Path:
    """The folder with only one of its rows, with the seed that it has among the others."""
    copy = shutil.copytree(folder, tmp_path / "one")
    position = [row["name"] for row in ROWS].index(name)
    row = ROWS[position] | {"prompt": f"clip {position}", "seed": position, "image": str(folder / "a.png")}
    (copy / "rows.jsonl").write_text(json.dumps(row))
    return copy


def raising(message: str) -> Any:
    def run(*_: object) -> None:
        raise AssertionError(message)

    return run


COUNTING = """
import importlib.machinery, sys

class Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        spec = super().find_spec(name, path, target)
        if name == "diffusers.models.autoencoders.autoencoder_kl_ltx":
            execute = spec.loader.exec_module
            def exec_module(module):
                execute(module)
                encode = module.AutoencoderKLLTXVideo.encode
                def counted(self, pixels, *rest, **more):
                    with open(FILE, "a") as file:
                        file.write("encoded\\n")
                    return encode(self, pixels, *rest, **more)
                module.AutoencoderKLLTXVideo.encode = counted
            spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder)
"""
"""A `sitecustomize`, which every Python process runs first: the VAE's encoder writes a line each time it is called."""


def test_a_picture_of_fifty_prompts_is_encoded_once(folder: Path, tmp_path: Path):
    """Actors render them in the layout `pinned`, in which one of the actors encodes images."""
    copy, calls = shutil.copytree(folder, tmp_path / "fifty"), tmp_path / "calls"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(f"FILE = {str(calls)!r}\n{COUNTING}")
    rows = [{"prompt": f"prompt {i}", "name": f"clip{i}", "image": "a.png"} for i in range(50)]
    (copy / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    pinned = {
        "placement.layout": "pinned", "placement.devices": 3, "defaults.num_inference_steps": 1,
        "defaults.guidance_scale": 1.0, "defaults.width": 64,
    }  # fmt: skip
    render_elsewhere(copy, tmp_path / "out", pinned, tmp_path / "site")
    assert len(list((tmp_path / "out").glob("*.mp4"))) == 50
    assert calls.read_text() == "encoded\n"


def test_plan_shows_the_stages_and_opens_all_media(folder: Path, tmp_path: Path):
    result = run("plan", folder)
    assert result.exit_code == 0, result.output
    assert "refine" in result.output and "encode_image" in result.output
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "a.png").write_bytes(b"no picture")
    result = run("plan", broken)
    assert result.exit_code == 2
    assert result.output.count("not an image; use PNG") == 8


def test_noise_in_every_step_is_refused_where_diffusers_has_its_sign_wrong(folder: Path, tmp_path: Path):
    changed = tmp_path / "changed"
    shutil.copytree(folder, changed)
    config = changed / "model" / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"stochastic_sampling": True}))
    result = run("plan", changed)
    assert result.exit_code == 2 and "LTXConditionPipeline renders noise" in result.output
