"""Images, videos, second passes and LoRAs of rows: resolved, or refused with the line, the field and the remedy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import av
import loras
import numpy as np
import PIL.Image
import pytest
import tiny

from ltx_dist.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ltx_dist.checkpoints.lora_files import linear_layers
from ltx_dist.inputs.config import DefaultsConfig
from ltx_dist.inputs.kept_request import kept_request
from ltx_dist.inputs.media_rows import LoraRow
from ltx_dist.inputs.prompts import read_prompts
from ltx_dist.models.ltx_video.presets import PRESETS
from ltx_dist.pipeline.conditions import Condition, SecondPass
from ltx_dist.pipeline.request import RenderRequest


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tiny.save_checkpoint(tmp_path_factory.mktemp("tiny") / "model", "0.9.5", "LTXConditionPipeline")
    return open_checkpoint(str(folder))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, checkpoint: Checkpoint) -> Path:
    """Pictures of 768x512 and 500x500, videos of 40 frames at 25 and 5 at 50, a text, a LoRA."""
    folder = tmp_path_factory.mktemp("rows")
    for name, size in {"a.png": (768, 512), "b.png": (768, 512), "square.png": (500, 500)}.items():
        pixels = np.random.default_rng(len(name)).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(folder / name)
    save_video(folder / "long.mp4", 40, 25)
    save_video(folder / "short.mp4", 5, 50)
    (folder / "text.png").write_text("no picture")
    loras.save(folder / "style.safetensors", loras.make_lora(linear_layers(checkpoint)))
    loras.save(folder / "ltxv-ic-lora-depth.safetensors", loras.make_lora(linear_layers(checkpoint), rank=8))
    loras.save(folder / "other.safetensors", loras.make_lora(linear_layers(checkpoint), rank=2))
    return folder


def save_video(path: Path, frames: int, rate: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(frames):
            pixels = np.full((64, 96, 3), 5 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


SMALL = {"height": 64, "width": 96, "num_frames": 33, "num_inference_steps": 4, "frame_rate": 25.0}


def read(
    folder: Path, checkpoint: Checkpoint, *rows: Mapping[str, Any], version: str = "generic",
    warnings: list[str] | None = None, named: tuple[LoraRow, ...] = (), **defaults: Any,
) -> list[RenderRequest]:  # fmt: skip
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": "p", **row}) for row in rows))
    given = DefaultsConfig(**({} if version != "generic" else SMALL) | defaults)
    return read_prompts(str(path), given, PRESETS[version], checkpoint, warnings, named)


def refused(folder: Path, checkpoint: Checkpoint, row: Mapping[str, Any], **more: Any) -> str:
    """The error in the only row, without its place."""
    with pytest.raises(ValueError) as caught:
        read(folder, checkpoint, row, **more)
    assert str(caught.value).startswith(f"{folder / 'rows.jsonl'}:1: ")
    return str(caught.value).removeprefix(f"{folder / 'rows.jsonl'}:1: ")


def test_an_image_is_the_first_frame(folder: Path, checkpoint: Checkpoint):
    (request,) = read(folder, checkpoint, {"image": "a.png"})
    (condition,) = request.conditions
    assert condition == Condition(str(folder / "a.png"), condition.sha256)
    assert len(condition.sha256) == 64 and request.image_cond_noise_scale == 0.15


def test_conditions_keep_their_order_and_settings(folder: Path, checkpoint: Checkpoint):
    row = {
        "image": "a.png",
        "conditions": [
            {"image": "b.png", "frame_index": 13, "strength": 0.5, "fit": "pad"},
            {"video": "long.mp4", "frame_index": 8, "num_frames": 17, "start_frame": 20},
            {"image": "b.png", "frame_index": -1, "preprocess": "official", "crf": 35, "blur": False},
        ],
        "image_cond_noise_scale": 0.0,
    }
    (request,) = read(folder, checkpoint, row)
    first, second, third, last = request.conditions
    assert (first.frame_index, second.frame_index, third.frame_index, last.frame_index) == (0, 13, 8, 32)
    assert (second.strength, second.fit, second.is_video) == (0.5, "pad", False)
    assert (third.is_video, third.start_frame, third.num_frames) == (True, 20, 17)
    assert (last.preprocess, last.crf, last.blur) == ("official", 35, False)
    assert request.image_cond_noise_scale == 0.0


def test_settings_of_the_row_and_the_config_are_those_of_its_conditions(folder: Path, checkpoint: Checkpoint):
    rows = [{"image": "a.png", "preprocess": "official"}, {"conditions": [{"image": "a.png", "fit": "stretch"}]}]
    first, second = read(folder, checkpoint, *rows, fit="pad")
    assert (first.conditions[0].fit, first.conditions[0].crf, first.conditions[0].blur) == ("pad", 29, True)
    assert (second.conditions[0].fit, second.conditions[0].crf, second.conditions[0].blur) == ("stretch", 0, False)


def test_a_row_without_media_is_as_before(folder: Path, checkpoint: Checkpoint):
    plain, noisy = read(folder, checkpoint, {}, {"image_cond_noise_scale": 0.0}, fit="pad")
    assert replace(noisy, request_id=plain.request_id, seed=plain.seed) == plain and not plain.has_media


def test_a_video_to_begin_with(folder: Path, checkpoint: Checkpoint):
    (request,) = read(folder, checkpoint, {"video": "long.mp4", "denoise_strength": 0.5, "image": "a.png"})
    assert request.video is not None and (request.video.num_frames, request.num_steps) == (33, 2)
    assert len(request.conditions) == 1


def test_media_travel_by_csv_and_yaml(folder: Path, checkpoint: Checkpoint):
    (folder / "rows.csv").write_text(
        "prompt,image,conditions,loras,blur,preprocess\np,a.png,,style.safetensors,false,official\n"
        'p,,"[{""image"": ""b.png"", ""frame_index"": 8}]",,,\n'
    )
    first, second = read_prompts(str(folder / "rows.csv"), DefaultsConfig(**SMALL), PRESETS["generic"], checkpoint)
    assert not first.conditions[0].blur and len(first.loras) == 1
    assert second.conditions[0].frame_index == 8
    (folder / "rows.yaml").write_text("- {prompt: p, image: a.png, loras: [style.safetensors]}\n")
    (third,) = read_prompts(str(folder / "rows.yaml"), DefaultsConfig(**SMALL), PRESETS["generic"], checkpoint)
    assert (third.conditions, third.loras) == (
        (replace(first.conditions[0], preprocess="diffusers", crf=0),),
        first.loras,
    )


WRONG = [
    ({"image": "none.png"}, "image: {folder}/none.png: no such file; paths are relative to the prompt file's folder"),
    ({"image": "text.png"}, "image: {folder}/text.png: not an image; use PNG"),
    ({"image": ""}, "image: empty; give a value, or leave it out"),
    ({"image": 7}, "image: 7 is not text; put it in quotes"),
    ({"image": "long.mp4"}, "image: {folder}/long.mp4: not an image"),
    ({"conditions": {"image": "a.png"}}, "conditions: "),
    ({"conditions": [{}]}, "conditions: [0]: give either image or video"),
    ({"conditions": [{"image": "a.png", "video": "long.mp4"}]}, "conditions: [0]: give either image or video"),
    ({"conditions": [{"image": "a.png"}, {"imgae": "a.png"}]}, "conditions: [1].imgae: unknown key; did you mean"),
    ({"conditions": [{"image": "a.png", "strength": 1.5}]}, "conditions: [0].strength: 1.5 is too large; it must"),
    ({"conditions": [{"image": "a.png", "num_frames": 9}]}, "conditions: [0]: start_frame and num_frames are"),
    ({"conditions": [{"image": "a.png", "frame_index": 33}]}, "conditions: [0]: frame_index: 33 is not a frame of the"),
    ({"conditions": [{"image": "none.png"}]}, "conditions: [0].image: {folder}/none.png: no such file"),
    ({"conditions": [{"video": "a.png"}]}, "conditions: [0].video: {folder}/a.png: not a video"),
    ({"conditions": [{"video": "long.mp4"}]}, "conditions: [0].video: {folder}/long.mp4: 34 frames from frame_index"),
    ({"conditions": [{"video": "short.mp4"}]}, "conditions: [0].video: {folder}/short.mp4: 5 frames are not a"),
    (
        {"conditions": [{"video": "long.mp4", "num_frames": 17, "frame_index": 13}]},
        "conditions: [0]: frame_index: 13 is not a multiple of 8, which a video needs; use 8 or 16",
    ),
    ({"image": "a.png", "crf": 20}, "image: crf: applies only to preprocess: official; set that, too"),
    ({"video": "long.mp4"}, "video: needs denoise_strength below 1"),
    ({"video": "long.mp4", "denoise_strength": 1.0}, "video: needs denoise_strength below 1"),
    ({"denoise_strength": 0.5}, "denoise_strength: applies only to a clip with video; give video, too"),
    ({"video": "long.mp4", "denoise_strength": 0.2}, "denoise_strength: 0.2 of 4 steps is less than one step; "
    "use at least 0.25"),
    ({"video": "short.mp4", "denoise_strength": 0.5}, "video: {folder}/short.mp4: has 5 frames and the clip 33"),
    ({"recipe": "two_passes"}, "recipe: two passes need a latent upscaler between them; set model.upscaler"),
    ({"recipe": "three"}, "recipe: 'three' is not one of 'one_pass' or 'two_passes'"),
    ({"second_pass": {"timesteps": [900]}}, "second_pass: two passes need a latent upscaler between them"),
    ({"loras": "none.safetensors"}, "loras: {folder}/none.safetensors: no such file"),
    ({"loras": ["a.png"]}, "loras: {folder}/a.png: not a .safetensors file"),
    ({"loras": [{"name": "style"}]}, "loras: style: no LoRA of model.loras has this name; known are none"),
    ({"loras": [{"weight": 1.0}]}, "loras: [0]: give the path of the LoRA, or the name of one of model.loras"),
    ({"loras": ["style.safetensors", "style.safetensors"]}, "loras: {folder}/style.safetensors: given twice"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "message"), WRONG, ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else ""
)
def test_wrong_media_are_named_with_the_remedy(folder: Path, checkpoint: Checkpoint, row: Any, message: str):
    assert refused(folder, checkpoint, row).startswith(message.format(folder=folder))


def test_every_mistake_of_a_row_is_said_at_once(folder: Path, checkpoint: Checkpoint):
    with pytest.raises(ValueError) as caught:
        read(folder, checkpoint, {"image": "none.png", "loras": "none.safetensors"}, {"image": "text.png"})
    lines = str(caught.value).splitlines()
    assert [line.removeprefix(f"{folder}/rows.jsonl:").split(": ")[:2] for line in lines] == [
        ["1", "image"], ["1", "loras"], ["2", "image"],
    ]  # fmt: skip


def test_shapes_and_rates_are_warned_about(folder: Path, checkpoint: Checkpoint):
    warnings: list[str] = []
    rows = [
        {"image": "a.png"},
        {"image": "square.png"},
        {"image": "square.png", "fit": "stretch"},
        {"conditions": [{"video": "long.mp4", "num_frames": 9}], "frame_rate": 50.0},
    ]
    read(folder, checkpoint, *rows, warnings=warnings)
    place = f"{folder}/rows.jsonl"
    assert warnings == [
        f"{place}:2: image: {folder}/square.png: cropped by 33% from 500x500 to 96x64",
        f"{place}:3: image: {folder}/square.png: stretched by 50% from 500x500 to 96x64; fit: crop keeps its shape",
        f"{place}:4: conditions: [0].video: {folder}/long.mp4: has 25 frames per second and the clip 50: it will play "
        "2 times as fast",
        f"{place}:4: frame_rate: 50 is above 30, the highest that LTX-Video was trained for; motion may look wrong",
    ]


def test_a_second_pass_of_another_shape_is_warned_about(folder: Path, with_upscaler: Checkpoint):
    warnings: list[str] = []
    sizes = [{"height": 704, "width": 1216}, {"height": 480, "width": 832}, {"height": 512, "width": 768}]
    read(folder, with_upscaler, *({"num_frames": 33} | size for size in sizes), version="0.9.8-2b-distilled",
         warnings=warnings)  # fmt: skip
    place = f"{folder}/rows.jsonl"
    assert warnings == [
        f"{place}:1: second_pass: frames of 1600x896 are stretched by 3% to 1216x704",
        f"{place}:2: second_pass: frames of 1088x576 are stretched by 8% to 832x480",
    ]


def test_older_versions_take_a_first_frame_and_no_more(folder: Path, checkpoint: Checkpoint):
    older = replace(checkpoint, pipeline_class="LTXPipeline")
    (request,) = read(folder, older, {"image": "a.png"})
    assert len(request.conditions) == 1
    for row in (
        {"conditions": [{"image": "a.png", "frame_index": 8}]},
        {"conditions": [{"image": "a.png", "strength": 0.5}]},
        {"image": "a.png", "conditions": [{"image": "b.png", "frame_index": 8}]},
        {"conditions": [{"video": "long.mp4", "num_frames": 9}]},
        {"video": "long.mp4", "denoise_strength": 0.5},
    ):
        message = refused(folder, older, row)
        assert "LTXPipeline, which renders this checkpoint, takes one image, as the first frame" in message


def test_a_reference_video_goes_with_an_ic_lora(folder: Path, checkpoint: Checkpoint):
    row = {"reference": "long.mp4", "loras": [{"path": "ltxv-ic-lora-depth.safetensors"}], "image": "a.png"}
    (request,) = read(folder, checkpoint, row, fit="pad")
    assert request.reference == Condition(
        str(folder / "long.mp4"), request.reference.sha256 if request.reference else "", is_video=True, num_frames=33,
        fit="pad",
    )  # fmt: skip
    assert request.has_media and len(request.seen) == 2 and request.seen[-1] is request.reference
    (own,) = read(folder, checkpoint, {"reference": "long.mp4", "loras": ["style.safetensors"]})
    assert own.reference and own.loras, "one that a user trained may have any name"


def test_an_ic_lora_needs_a_reference_and_a_reference_one(folder: Path, checkpoint: Checkpoint):
    place = folder / "ltxv-ic-lora-depth.safetensors"
    alone = f"{place}: an IC-LoRA, which follows a video; give the row a reference video"
    assert refused(folder, checkpoint, {"loras": [place.name]}) == f"loras: {alone}"
    named = (LoraRow(path=str(place)),)
    assert refused(folder, checkpoint, {}, named=named) == f"model.loras: {alone}"
    assert len(read(folder, checkpoint, {"loras": []}, named=named)) == 1
    lone = refused(folder, checkpoint, {"reference": "long.mp4"})
    assert lone == "model.loras: a reference video needs an IC-LoRA in loras; add one"
    row = {"loras": [place.name]}
    assert "has 5 frames and the clip 33" in refused(folder, checkpoint, row | {"reference": "short.mp4"})
    assert "not a video" in refused(folder, checkpoint, row | {"reference": "a.png"})
    older = replace(checkpoint, pipeline_class="LTXPipeline")
    assert "use a checkpoint of 0.9.5 or newer" in refused(folder, older, row | {"reference": "long.mp4"})


def test_an_ic_lora_of_another_size_of_model_is_refused(folder: Path, checkpoint: Checkpoint):
    """All published ones are for 13B."""
    wide = {"transformer.transformer_blocks.0.attn1.to_q": (4096, 4096)}
    loras.save(folder / "wide-iclora.safetensors", loras.make_lora(wide))
    message = refused(folder, checkpoint, {"loras": ["wide-iclora.safetensors"], "reference": "long.mp4"})
    assert message.endswith("; the file seems to be for LTX-Video 13B")


def test_a_file_is_opened_once_for_all_rows(folder: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch):
    from ltx_dist.inputs import media

    opened: list[str] = []
    open_media = media.open_media
    monkeypatch.setattr(media, "open_media", lambda place: (opened.append(place), open_media(place))[1])
    read(folder, checkpoint, *({"image": "a.png", "seed": seed} for seed in range(50)))
    assert len(opened) == 1


@pytest.fixture
def with_upscaler(checkpoint: Checkpoint) -> Checkpoint:
    return replace(checkpoint, sources={"latent_upsampler": Path("upscaler")})


def test_versions_are_made_as_published_where_there_is_an_upscaler(folder: Path, with_upscaler: Checkpoint):
    size = {"height": 704, "width": 1216, "num_frames": 33}
    (request,) = read(folder, with_upscaler, size, version="0.9.8-13b-distilled")
    assert request.timesteps == (1000.0, 993.7, 987.5, 981.2, 975.0, 909.4, 725.0) and request.num_inference_steps == 7
    assert request.second_pass == SecondPass(
        448, 800, 3, (909.4, 725.0, 421.9), 1.0, 1.0, 0.0, 0.15, 1.0, 0.6, "decode"
    )
    assert (request.first_size, request.decoded_size) == ((448, 800), (896, 1600))
    (dev,) = read(folder, with_upscaler, size, version="0.9.7-13b-dev")
    assert isinstance(dev.second_pass, SecondPass)
    assert (dev.num_steps, dev.guidance_scale, dev.second_pass.num_steps) == (30, 5.0, 4)
    assert (dev.second_pass.adain_factor, dev.second_pass.guidance_rescale, dev.image_cond_noise_scale) == (
        0.0,
        0.7,
        0.15,
    )


def test_one_pass_stays_available(folder: Path, with_upscaler: Checkpoint, checkpoint: Checkpoint):
    row = {"height": 704, "width": 1216, "num_frames": 33}
    (asked,) = read(folder, with_upscaler, row | {"recipe": "one_pass"}, version="0.9.8-2b-distilled")
    (without,) = read(folder, checkpoint, row, version="0.9.8-2b-distilled")
    assert asked == without and asked.second_pass is None and len(asked.timesteps or ()) == 8


def test_settings_of_the_second_pass_lie_over_the_presets(folder: Path, with_upscaler: Checkpoint):
    row = {"height": 704, "width": 1216, "num_frames": 33}
    overridden = {"adain_factor": 0.25, "num_inference_steps": 10, "denoise_strength": 0.45}
    (request,) = read(folder, with_upscaler, row | {"second_pass": overridden}, version="0.9.8-2b-distilled")
    two = request.second_pass
    assert isinstance(two, SecondPass)
    assert (two.timesteps, two.num_steps, two.adain_factor, two.guidance_scale) == (None, 4, 0.25, 1.0)
    (request,) = read(
        folder, with_upscaler, row | {"second_pass": {"timesteps": [800, 400]}}, version="0.9.7-13b-dev",
        second_pass={"adain_factor": 0.5},
    )  # fmt: skip
    two = request.second_pass
    assert isinstance(two, SecondPass)
    assert (two.timesteps, two.num_steps, two.adain_factor) == ((800.0, 400.0), 2, 0.5)
    unshifted = replace(with_upscaler, pipeline_class="LTXPipeline")
    (request,) = read(folder, unshifted, {"second_pass": {"timesteps": [800.0]}})
    assert request.first_size == (32, 32)
    (request,) = read(folder, with_upscaler, {"second_pass": {"timesteps": [800.0]}})
    assert request.first_size == (32, 32) and request.decoded_size == (64, 64)


def test_second_passes_that_cannot_be_are_refused(folder: Path, with_upscaler: Checkpoint, tmp_path: Path):
    schedule = {"timesteps": [800.0]}
    for scheduler in (tiny.DYNAMIC_SHIFT, {"stochastic_sampling": True}):
        (tmp_path / "scheduler_config.json").write_text(json.dumps(scheduler))
        sources = {**with_upscaler.sources, "scheduler": tmp_path}
        older = replace(with_upscaler, pipeline_class="LTXPipeline", sources=sources)
        assert "cannot start from latents" in refused(folder, older, {"second_pass": schedule})
    assert "generic was not published with two passes" in refused(folder, with_upscaler, {"recipe": "two_passes"})
    both = {"recipe": "one_pass", "second_pass": schedule}
    assert refused(folder, with_upscaler, both) == "second_pass: recipe is one_pass; leave one of the two out"
    assert "give timesteps, or num_inference_steps" in refused(
        folder, with_upscaler, {"second_pass": {"adain_factor": 0.5}}
    )
    none = {"num_inference_steps": 4, "denoise_strength": 0.1}
    assert "0.1 of 4 steps is less than one step" in refused(folder, with_upscaler, {"second_pass": none})
    assert "[1000.0, 5.0] do not decrease from below 1000" in refused(
        folder, with_upscaler, {"second_pass": {"timesteps": [1000, 5]}}
    )
    two = schedule | {"denoise_strength": 0.5}
    assert "timesteps replace num_inference_steps" in refused(folder, with_upscaler, {"second_pass": two})
    small = {"second_pass": schedule, "height": 32}
    assert "is less than 32 pixels; make the clip larger" in refused(folder, with_upscaler, small)


def test_loras_of_the_config_are_those_of_rows_without(folder: Path, checkpoint: Checkpoint):
    named = (LoraRow(path=str(folder / "style.safetensors"), name="style", weight=0.8),)
    rows = [{}, {"loras": []}, {"loras": [{"name": "style", "weight": 0.5}, "other.safetensors"]}]
    plain, without, both = read(folder, checkpoint, *rows, named=named)
    assert [lora.weight for lora in plain.loras] == [0.8] and without.loras == ()
    assert [(Path(lora.place).name, lora.weight) for lora in both.loras] == [
        ("style.safetensors", 0.5), ("other.safetensors", 1.0),
    ]  # fmt: skip


def test_a_request_with_all_of_it_is_kept_and_read_again(folder: Path, with_upscaler: Checkpoint, tmp_path: Path):
    row = {
        "image": "a.png", "conditions": [{"video": "long.mp4", "num_frames": 9, "frame_index": 8}], "name": "clip",
        "video": "long.mp4", "denoise_strength": 0.5, "loras": ["style.safetensors"], "reference": "long.mp4",
        "second_pass": {"timesteps": [909, 725]},
    }  # fmt: skip
    (request,) = read(folder, with_upscaler, row)
    text = json.dumps(asdict(request))
    assert kept_request(tmp_path / "clip.json", text, with_upscaler) == request
    changed = text.replace('"strength": 1.0', '"strength": "much"').replace('"strength":1.0', '"strength":"much"')
    with pytest.raises(ValueError, match=r"conditions.0.strength: .*remove the file"):
        kept_request(tmp_path / "clip.json", changed, with_upscaler)
