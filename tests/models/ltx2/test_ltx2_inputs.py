"""Requests to LTX-2.x are checked before anything is loaded: checkpoints, sizes, lengths, guidance, schedules."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import loras
import PIL.Image
import pytest
import tiny_ltx2 as tiny

from ltx_dist.checkpoints.checkpoint import open_checkpoint
from ltx_dist.checkpoints.lora_files import linear_layers
from ltx_dist.commands.plan_table import denoising_lines
from ltx_dist.inputs.config import RenderConfig
from ltx_dist.models.ltx2.passes import passes
from ltx_dist.models.ltx2.presets import PRESETS
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.placement.host_plan import host_need
from ltx_dist.placement.inventory import DeviceInfo, Inventory
from ltx_dist.report.copied_command import copied_command
from ltx_dist.run.batch import Batch, open_batch


@pytest.fixture(scope="module", params=tiny.VERSIONS)
def version(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tiny")
    return {one: tiny.make_checkpoint(one, root / one) for one in tiny.VERSIONS}


def batch(folder: Path, tmp_path: Path, row: dict[str, Any], **model: Any) -> Batch:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": "a robot", "max_sequence_length": 16} | row) + "\n")
    return open_batch(
        str(prompts),
        RenderConfig.model_validate({"model": {"checkpoint": str(folder)} | model, "cache": {"embeddings": None}}),
    )


def request_of(folder: Path, tmp_path: Path, **row: Any) -> RenderRequest:
    return batch(folder, tmp_path, {"spatio_temporal_guidance_blocks": [1]} | row).requests[0]


def error(folder: Path, tmp_path: Path, **row: Any) -> str:
    with pytest.raises(ValueError) as caught:
        request_of(folder, tmp_path, **row)
    return str(caught.value)


def test_versions_are_told_apart_by_flags_whatever_the_folder_is_called(version: Any, folders, tmp_path: Path):
    folder = shutil.copytree(folders[version], tmp_path / "LTX-9")
    checkpoint = open_checkpoint(str(folder))
    assert checkpoint.generation == version and checkpoint.distilled == (version == "2.5")


def test_presets_write_all_of_the_guidance_and_distilled_ones_take_one_pass_a_step(folders, tmp_path: Path):
    for name, preset in PRESETS.items():
        numbers = [
            preset.settings["guidance_scale"],
            preset.settings["guidance_rescale"],
            preset.settings["stg_scale"],
            preset.settings["modality_scale"],
        ]
        numbers += [preset.settings["audio_guidance_scale"], preset.settings["audio_guidance_rescale"]]
        numbers += [preset.settings["audio_stg_scale"], preset.settings["audio_modality_scale"]]
        assert None not in numbers, name
    distilled = request_of(folders["2.5"], tmp_path, spatio_temporal_guidance_blocks=[])
    assert [one.guidance.transformer_passes for one in passes(distilled)] == [1, 1]
    assert [one.sigmas for one in passes(distilled)] == [
        (1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875),
        (0.909375, 0.725, 0.421875),
    ]
    assert [(one.width, one.height) for one in passes(distilled)] == [(768, 512), (1536, 1024)]
    (guided,) = passes(request_of(folders["2.3"], tmp_path))
    assert guided.guidance.transformer_passes == 4 and guided.sigmas is None and guided.num_inference_steps == 30
    (oldest,) = passes(request_of(folders["2.0"], tmp_path))
    assert oldest.guidance.transformer_passes == 3, "STG is a pass that changes nothing there"


def test_plan_says_how_often_clips_run_the_transformer(folders, tmp_path: Path):
    row = {"recipe": "one_pass", "spatio_temporal_guidance_blocks": [1]}
    clips = [batch(folders[version], tmp_path, row) for version in ("2.5", "2.3", "2.3")]
    clips.append(batch(folders["2.5"], tmp_path, {}))
    assert denoising_lines(one.family.denoising(one.requests[0]) for one in clips) == [
        "2 clips with 120 runs of the transformer each: 30 steps x 4",
        "1 clip with 8 runs of the transformer: 8 steps x 1",
        "1 clip with 11 runs of the transformer: 8 steps x 1 + 3 steps x 1",
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"height": 100}, "height: 100 is not a multiple of 32; use 96 or 128"),
        ({"num_frames": 100}, "num_frames: 100 is not a multiple of 8 plus 1; use 97 or 105"),
        ({"num_frames": 489}, "num_frames: 489 at 24 per second are more than 20 seconds, which LTX-2 was trained for; "
         "use at most 481"),
        ({"audio_stg_scale": 0}, "audio_stg_scale: diffusers reads 0 as stg_scale, which is 1"),
        ({"spatio_temporal_guidance_blocks": [3]}, "[3] is not a list of blocks, of which this transformer has 0 to 2"),
        ({"spatio_temporal_guidance_blocks": []}, "stg_scale is on and needs blocks"),
        ({"sigmas": [0.5, 0.7]}, "sigmas: [0.5, 0.7] is not a list of decreasing numbers, from at most 1 to above 0"),
        ({"timesteps": [1000, 500]}, "LTX2Pipeline takes no timesteps"),
        ({"recipe": "two_passes", "height": 96}, "height 96 is not a multiple of 64, as two passes need"),
        ({"second_pass": {"timesteps": [900]}}, "second_pass: timesteps: is only for LTX-Video"),
        ({"video": "a.mp4", "denoise_strength": 0.5}, "a.mp4"),
        ({"max_sequence_length": 2000}, "max_sequence_length: 2000 is too large"),
    ],
)  # fmt: skip
def test_what_cannot_be_rendered_is_refused_with_the_remedy(row: dict[str, Any], message: str, folders, tmp_path: Path):
    if row.get("recipe"):
        row = row | {"second_pass": {"sigmas": [0.9, 0.5]}}
    assert message in error(folders["2.3"], tmp_path, **row)


@pytest.mark.parametrize(("frame_index", "lies_at"), [(0, 0), (1, 1), (9, 9), (113, 113), (-1, 113)])
def test_keyframes_lie_where_latent_frames_begin(frame_index: int, lies_at: int, folders, tmp_path: Path):
    PIL.Image.new("RGB", (96, 64)).save(tmp_path / "picture.png")
    condition = {"image": "picture.png", "frame_index": frame_index}
    (found,) = request_of(folders["2.3"], tmp_path, conditions=[condition]).conditions
    assert (found.frame_index, found.crf) == (lies_at, 33)
    (found,) = request_of(folders["2.5"], tmp_path, conditions=[condition]).conditions
    assert found.crf == 18, "as 2.5 was trained"


def test_other_frames_name_the_nearest(folders, tmp_path: Path):
    PIL.Image.new("RGB", (96, 64)).save(tmp_path / "picture.png")
    for frame_index, nearest in ((5, "use 1 or 9"), (120, "use 113"), (121, "use 0 to 113, or -1")):
        assert nearest in error(
            folders["2.3"], tmp_path, conditions=[{"image": "picture.png", "frame_index": frame_index}]
        )


def test_guidance_on_distilled_weights_warns_with_the_passes_of_a_step(folders, tmp_path: Path):
    row = {"stg_scale": 1, "audio_stg_scale": 1, "modality_scale": 3, "spatio_temporal_guidance_blocks": [1]}
    (warning,) = batch(folders["2.5"], tmp_path, row).warnings
    assert "a step of this clip takes 3 passes" in warning


def test_settings_of_sound_are_refused_for_a_model_without(tmp_path: Path):
    assert "stg_scale: is only for LTX-2" in error(Path("demo"), tmp_path, stg_scale=1, max_sequence_length=64)


def test_one_missing_file_is_named_with_the_gate(folders, tmp_path: Path):
    folder = shutil.copytree(folders["2.5"], tmp_path / "copy")
    (folder / "connectors" / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(ValueError) as caught:
        open_checkpoint(str(folder))
    for part in ("connectors: no weights", "tokenizer.json is missing", "hf auth login"):
        assert part in str(caught.value)


def test_the_gemma_of_another_version_is_refused(folders, tmp_path: Path):
    folder = shutil.copytree(folders["2.5"], tmp_path / "copy")
    shutil.rmtree(folder / "text_encoder")
    shutil.copytree(folders["2.3"] / "text_encoder", folder / "text_encoder")
    with pytest.raises(ValueError, match="model_type is 'gemma3', but LTX-2.5 was trained with 'gemma4_unified'"):
        open_checkpoint(str(folder))
    with pytest.raises(ValueError, match="model.text_encoder: .*: an LTX-2 checkpoint has its own Gemma"):
        open_checkpoint(str(folders["2.5"]), str(folders["2.3"]))


def test_the_copied_command_asks_for_the_same_clip(folders, tmp_path: Path):
    PIL.Image.new("RGB", (96, 64)).save(tmp_path / "picture.png")
    rows: list[dict[str, Any]] = [
        {"conditions": [{"image": "picture.png"}, {"image": "picture.png", "frame_index": 9, "strength": 0.5}]},
        {"recipe": "one_pass", "height": 64, "width": 96},
        {"second_pass": {"audio": "first"}},
        {"loras": ["style.safetensors"], "second_pass": {"loras": [{"path": "fast.safetensors", "weight": 0.5}]}},
    ]
    save_loras(folders["2.5"], tmp_path)
    for row in rows:
        request = request_of(folders["2.5"], tmp_path, name="clip", **row)
        command = copied_command(json.loads(json.dumps(asdict(request))), {})
        again = json.loads(command.partition("printf '%s\\n' '")[2].partition("' | ")[0])
        assert batch(folders["2.5"], tmp_path, again).requests == (request,)


def save_loras(model: Path, folder: Path) -> None:
    linears = linear_layers(open_checkpoint(str(model)))
    for seed, name in enumerate(("style", "fast")):
        tensors = loras.make_lora(linears, ["proj_in", "connectors.video_text_proj_in"], seed=seed)
        loras.save(folder / f"{name}.safetensors", tensors)


def test_loras_of_the_second_pass_are_used_beside_those_of_the_clip(folders, tmp_path: Path):
    save_loras(folders["2.5"], tmp_path)
    both = {"loras": ["style.safetensors"], "second_pass": {"loras": "fast.safetensors"}}
    found = batch(folders["2.5"], tmp_path, both)
    first, second = passes(found.requests[0])
    assert [Path(lora.place).stem for lora in second.loras] == ["style", "fast"] and second.loras[:1] == first.loras
    assert len(found.checkpoint.loras) == 2
    assert found.checkpoint.num_parameters["connectors.loras"] > 0


@pytest.mark.parametrize(("row", "message"), [
    ({"loras": ["fast.safetensors"], "second_pass": {"loras": ["fast.safetensors"]}}, "fast.safetensors: given twice"),
    ({"second_pass": {"loras": ["none.safetensors"]}}, "second_pass: loras: .*none.safetensors: no such file"),
    ({"second_pass": {"loras": [{"weight": 1.0}]}}, "second_pass: loras"),
])  # fmt: skip
def test_loras_of_the_second_pass_that_cannot_be_used(row: dict[str, Any], message: str, folders, tmp_path: Path):
    save_loras(folders["2.5"], tmp_path)
    assert re.search(message, error(folders["2.5"], tmp_path, **row))


def test_a_lora_of_the_connectors_alone_is_refused(folders, tmp_path: Path):
    linears = linear_layers(open_checkpoint(str(folders["2.3"])))
    loras.save(tmp_path / "a.safetensors", loras.make_lora(linears, ["connectors.video_text_proj_in"]))
    assert "changes the connectors alone" in error(folders["2.3"], tmp_path, loras=["a.safetensors"])


def test_a_setting_of_the_model_that_would_not_be_heeded_is_refused(folders, tmp_path: Path):
    with pytest.raises(ValueError, match="model.vae_precision: .* leave it out"):
        batch(folders["2.5"], tmp_path, {}, vae_precision="float32")


def test_a_text_encoder_in_int4_is_refused_on_a_cpu(folders, tmp_path: Path):
    one, other = (batch(folders["2.5"], tmp_path, {}, text_encoder_quantization=kind) for kind in ("int4", "int8"))
    with pytest.raises(ValueError, match=r"^model.text_encoder_quantization: int4 saves nothing on a CPU.*use int8"):
        one.placement(Inventory((), 2))
    assert other.placement(Inventory((), 2)).workers[0].device == "cpu"


GIGABYTE = 1_000_000_000


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_checkpoint("2.5", tmp_path_factory.mktemp("full") / "2.5", tiny=False, holes=True)


@pytest.mark.parametrize("gigabytes", [16, 24, 32, 48, 80])
def test_every_card_has_a_plan_that_fits(gigabytes: int, full_size: Path, tmp_path: Path):
    """The default clip of LTX-2.5, 1536x1024 in two passes, from headers alone."""
    found = placed(full_size, tmp_path, gigabytes)
    (worker,) = found.workers
    assert worker.peak_bytes <= gigabytes * GIGABYTE
    expected = {16: "streamed", 24: "streamed", 32: "streamed", 48: "time_sliced", 80: "resident"}
    assert worker.residency == expected[gigabytes]
    if worker.residency == "streamed":
        assert {"text_encoder", "transformer"} <= set(worker.streamed)


@pytest.mark.parametrize("quantization", ["int8", "int4"])
@pytest.mark.parametrize("gigabytes", [24, 48])
def test_a_quantised_text_encoder_stays_whole_and_takes_nothing_of_the_host(
    gigabytes: int, quantization: str, full_size: Path, tmp_path: Path
):
    plain, small = (
        placed(full_size, tmp_path, gigabytes, text_encoder_quantization=one).workers[0]
        for one in ("none", quantization)
    )
    assert "text_encoder" not in small.streamed and small.peak_bytes <= gigabytes * GIGABYTE
    assert small.residency == plain.residency
    saved = [
        host_need(worker, batch(full_size, tmp_path, {}, text_encoder_quantization=one).demand("bfloat16")).locked
        for worker, one in ((plain, "none"), (small, quantization))
    ]
    assert saved[0] - saved[1] > 23 * GIGABYTE


def test_where_a_quantised_text_encoder_does_not_fit_it_can_be_streamed_instead(full_size: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"for encode_text; set model.text_encoder_quantization=none, with which"):
        placed(full_size, tmp_path, 16, text_encoder_quantization="int4")


@pytest.mark.parametrize(
    ("cards", "residencies"),
    [
        ((24, 24), ["streamed"] * 2),
        ((24, 80), ["streamed", "resident"]),
        ((80,) * 8, ["resident"] * 8),
    ],
    ids=str,
)
def test_mixed_cards_and_many_have_plans(
    cards: tuple[int, ...], residencies: list[str], full_size: Path, tmp_path: Path
):
    """The batch is long enough that using all cards pays."""
    found = placed(full_size, tmp_path, *cards, clips=32)
    assert [worker.residency for worker in found.workers] == residencies
    assert len({worker.tiling for worker in found.workers}) == 1, "tiles change pixels, so all cards have the same"
    for worker, size in zip(found.workers, cards, strict=True):
        assert worker.capacity == size * GIGABYTE and worker.peak_bytes <= worker.capacity
        assert {"encode_text", "denoise", "refine", "decode"} <= set(worker.stages)


def placed(folder: Path, tmp_path: Path, *gigabytes: int, clips: int = 1, **model: str) -> Any:
    names = ["NVIDIA H100" if size == 80 else "NVIDIA GeForce RTX 4090" for size in gigabytes]
    sizes = enumerate(zip(names, gigabytes, strict=True))
    gpus = tuple(DeviceInfo(name, size * GIGABYTE, None, index) for index, (name, size) in sizes)
    asked = batch(folder, tmp_path, {"max_sequence_length": 1024, "num_videos_per_prompt": clips}, **model)
    return asked.placement(Inventory(gpus, 16))
