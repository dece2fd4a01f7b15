"""What is checked before a batch leaves this machine, and where it may be sent. No Ray is started."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO, TextIOWrapper
from pathlib import Path
from threading import Thread
from typing import BinaryIO

import fsspec
import numpy as np
import PIL.Image
import pytest
import yaml
from safetensors.numpy import save_file

from ltx_dist.checkpoints.checkpoint import open_checkpoint
from ltx_dist.cluster import packing
from ltx_dist.cluster.job_server import check_job_server
from ltx_dist.cluster.submission import prepare
from ltx_dist.inputs import prompt_sources
from ltx_dist.inputs.config_file import load_config
from ltx_dist.inputs.media_rows import LoraRow
from ltx_dist.inputs.prompt_files import read_prompt_file
from ltx_dist.inputs.prompts import requests_of
from ltx_dist.models.family import family_of


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "my prompts; rm -rf ~.csv"
    path.write_text('prompt,name\n"a red circle, it moves",red\n')
    return path


def test_the_prompts_and_the_settings_travel_and_nothing_else(prompts: Path):
    config = load_config(None, ["placement.layout=pinned", "placement.device=cpu", "defaults.seed=7"])
    submission = prepare(str(prompts), config, "/out/it's mine; $(id)")
    assert set(submission.files) == {"prompts.csv", "config.yaml"}
    assert submission.files["prompts.csv"] == prompts.read_bytes()
    settings = yaml.safe_load(submission.files["config.yaml"])
    assert settings.pop("recovery") == {"grace_seconds": 55}, "what Ray waits for a job that we submit, and less"
    assert settings == {"placement": {"layout": "pinned", "device": "cpu"}, "defaults": {"seed": 7}}
    assert shlex.split(submission.entrypoint) == [
        "ltx-dist", "render", "prompts.csv", "--config", "config.yaml", "--output", "/out/it's mine; $(id)",
    ]  # fmt: skip
    assert submission.num_clips == 1 and submission.checkpoint_is_here


def test_packages_are_ray_s_to_install(prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Packages make it another job, and if none are given, Ray is not asked for any."""
    monkeypatch.chdir(tmp_path)
    Path("nodes-1.0-py3-none-any.whl").write_bytes(b"wheel")
    plain = prepare(str(prompts), load_config(None), "/out")
    environment = {"RAY_JOB_STOP_WAIT_TIME_S": "60", "PYTHONUNBUFFERED": "1", "RAY_DEDUP_LOGS": "0"}
    assert plain.runtime_env("/tmp/job") == {"working_dir": "/tmp/job", "env_vars": environment}
    submission = prepare(str(prompts), load_config(None), "/out", pip=["s3fs>=2025.3", "nodes-1.0-py3-none-any.whl"])
    (wheel,) = submission.files.keys() - plain.files.keys()
    assert submission.files[wheel] == b"wheel" and wheel.startswith("wheels/")
    assert submission.runtime_env("/tmp/job") == {
        "working_dir": "/tmp/job",
        "env_vars": environment,
        "pip": ["s3fs>=2025.3", f"${{RAY_RUNTIME_ENV_CREATE_WORKING_DIR}}/{wheel}"],
    }
    assert submission.arguments == ("python", "-m", "ltx_dist.cli", *plain.arguments[1:])
    others = [prepare(str(prompts), load_config(None), "/out", pip=[one]) for one in ("s3fs", "gcsfs")]
    assert len({plain.digest, submission.digest, *(one.digest for one in others)}) == 4


def test_images_and_wheels_are_sent_together_up_to_what_ray_sends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    size = len(picture(tmp_path / "a.png"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(packing, "MAX_BYTES", size + 10)
    for num_bytes, fits in ((10, True), (11, False)):
        Path("nodes-1.0-py3-none-any.whl").write_bytes(b"x" * num_bytes)
        rows = [{"prompt": "moving left", "image": "a.png"}]
        with nullcontext() if fits else pytest.raises(ValueError, match=r"a\.png: .* which Ray does not send"):
            assert "a.png" in prepare(rows, load_config(None), "/out", pip=["nodes-1.0-py3-none-any.whl"]).files


def test_given_prompts_and_those_at_a_url_travel_as_a_file():
    config = load_config(None, ["defaults.vary={seed: 0-2}"])
    given = prepare(["a red circle", 'it\'s "blue"'], config, "/out")
    assert given.files["prompts.jsonl"] == b'{"prompt": "a red circle"}\n{"prompt": "it\'s \\"blue\\""}\n'
    assert given.num_clips == 6 and yaml.safe_load(given.files["config.yaml"])["defaults"] == {"vary": {"seed": "0-2"}}

    store = fsspec.filesystem("memory")
    store.pipe("/bucket/list.tsv", b"prompt\nred\n")
    try:
        submission = prepare("memory://bucket/list.tsv", config, "/out")
    finally:
        store.store.clear()
    assert submission.files["prompts.tsv"] == b"prompt\nred\n" and submission.num_clips == 3


def picture(path: Path, color: str = "red") -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (128, 128), color).save(path)
    return path.read_bytes()


def test_images_that_rows_name_travel_under_their_paths(tmp_path: Path):
    """With an absolute path or a URL, the cluster finds the file itself."""
    batch = tmp_path / "batch"
    near, far = picture(batch / "img" / "a.png"), picture(tmp_path / "shared" / "b.png", "blue")
    rows = [
        {"prompt": "moving left", "image": "img/a.png"},
        {"prompt": "moving up", "conditions": [{"image": "img/../img/a.png"}]},
        {"prompt": "moving down", "image": str(tmp_path / "shared" / "b.png")},
        {"prompt": "moving right", "image": f"file://{tmp_path}/shared/b.png"},
    ]
    (batch / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    submission = prepare(str(batch / "rows.jsonl"), load_config(None), "/out")
    assert set(submission.files) == {"prompts.jsonl", "config.yaml", "img/a.png"}
    assert submission.files["img/a.png"] == near != far
    picture(batch / "img" / "a.png", "green")
    again = prepare(str(batch / "rows.jsonl"), load_config(None), "/out")
    assert again.digest != submission.digest, "another image is another batch"


def test_a_folder_of_first_frames_travels(tmp_path: Path):
    (tmp_path / "rows.csv").write_text("prompt,name\nmoving left,red\nmoving up,none\n")
    red, _ = picture(tmp_path / "frames" / "red.png"), picture(tmp_path / "frames" / "other.png", "blue")
    submission = prepare(str(tmp_path / "rows.csv"), load_config(None), "/out", tmp_path / "frames")
    assert set(submission.files) == {"prompts.csv", "config.yaml", "first-frames/red.png"}, "what a row asks for"
    assert submission.files["first-frames/red.png"] == red
    assert submission.arguments[-2:] == ("--images", "first-frames")


def test_a_folder_of_first_frames_may_lie_outside_the_prompts_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "batch").mkdir()
    (tmp_path / "batch" / "rows.csv").write_text("prompt,name\nmoving left,red\n")
    red = picture(tmp_path / "frames" / "red.png")
    monkeypatch.chdir(tmp_path / "batch")
    submission = prepare("rows.csv", load_config(None), "/out", Path("../frames"))
    assert submission.files["first-frames/red.png"] == red


def test_a_folder_of_the_user_may_be_named_first_frames(tmp_path: Path):
    """Without --images it is a column like any other; with --images, the two would mix."""
    (tmp_path / "rows.jsonl").write_text('{"prompt": "moving left", "image": "first-frames/a.png"}\n')
    picture(tmp_path / "first-frames" / "a.png")
    submission = prepare(str(tmp_path / "rows.jsonl"), load_config(None), "/out")
    assert "first-frames/a.png" in submission.files and "--images" not in submission.arguments
    picture(tmp_path / "frames" / "b.png")
    with pytest.raises(ValueError, match=r"first-frames/a\.png: .*rename the folder"):
        prepare(str(tmp_path / "rows.jsonl"), load_config(None), "/out", tmp_path / "frames")


def test_an_image_that_a_row_names_in_the_folder_of_first_frames_travels_under_both_paths(tmp_path: Path):
    rows = [{"prompt": "left", "name": "red"}, {"prompt": "up", "conditions": [{"image": "frames/end.png"}]}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    red, end = picture(tmp_path / "frames" / "red.png"), picture(tmp_path / "frames" / "end.png", "blue")
    files = prepare(str(tmp_path / "rows.jsonl"), load_config(None), "/out", tmp_path / "frames").files
    assert files["first-frames/red.png"] == red and files["frames/end.png"] == end


def test_a_file_named_by_an_absolute_and_a_relative_path_travels(tmp_path: Path):
    red = picture(tmp_path / "red.png")
    rows = [{"prompt": "moving left", "image": str(tmp_path / "red.png")}, {"prompt": "up", "image": "red.png"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert prepare(str(tmp_path / "rows.jsonl"), load_config(None), "/out").files["red.png"] == red


def test_two_files_of_one_relative_path_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The config's paths are relative to the working directory, and those of rows to the prompt file's folder."""
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "batch" / "a.png")
    row = {"prompt": "moving left", "image": "a.png"}
    (tmp_path / "batch" / "rows.jsonl").write_text(json.dumps(row))
    (tmp_path / "a.png").write_bytes(b"weights")
    loras = [LoraRow(path="a.png")]
    file = read_prompt_file("batch/rows.jsonl", load_config(None).prompts)
    checkpoint = open_checkpoint("demo")
    preset = family_of(checkpoint).preset_for("auto", checkpoint)
    requests = requests_of(file, load_config(None).defaults, preset, checkpoint, load_config(None).prompts)
    assert packing.pack_files(requests, row, file.folder).keys() == {"a.png"}
    with pytest.raises(
        ValueError, match=r"^\S+/a\.png and \S+/batch/a\.png: both would be a\.png .*; rename one of them"
    ):
        packing.pack_files(requests, row, file.folder, loras)


@pytest.mark.parametrize("rows", ["prompt\nmoving left\n", 'prompt,vary\nmoving left,"{""image"": ""A,B""}"\n'])
def test_absolute_paths_that_vary_are_of_the_cluster(tmp_path: Path, rows: str):
    """Several values are written as one text, with commas."""
    picture(tmp_path / "data" / "a.png")
    picture(tmp_path / "data" / "b.png", "blue")
    places = {"A": str(tmp_path / "data" / "a.png"), "B": str(tmp_path / "data" / "b.png")}
    config = load_config(None, [] if "vary" in rows else [f"defaults.vary={{image: '{places['A']},{places['B']}'}}"])
    (tmp_path / "batch").mkdir()
    path = tmp_path / "batch" / "rows.csv"
    path.write_text(rows.replace("A,B", f"{places['A']},{places['B']}"))
    submission = prepare(str(path), config, "/out")
    assert set(submission.files) == {"prompts.csv", "config.yaml"} and submission.num_clips == 2


def test_images_beside_prompts_at_a_url_travel(tmp_path: Path):
    store = fsspec.filesystem("memory")
    store.pipe("/bucket/rows.jsonl", b'{"prompt": "moving left", "image": "a/b.png"}')
    content = picture(tmp_path / "b.png")
    store.pipe("/bucket/a/b.png", content)
    try:
        submission = prepare("memory://bucket/rows.jsonl", load_config(None), "/out")
    finally:
        store.store.clear()
    assert submission.files["a/b.png"] == content


@pytest.mark.parametrize("where", ["beside", "relative", "absolute"])
def test_word_lists_travel_with_those_that_they_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str):
    """They are those that the prompts were checked with, wherever they lie."""
    monkeypatch.chdir(tmp_path)
    lists = tmp_path / ("batch" if where == "beside" else "lists")
    for folder in ("batch", "job"):
        Path(folder).mkdir()
    (lists / "of").mkdir(parents=True)
    (lists / "colour.txt").write_text("red\n__of/blue__\n")
    (lists / "of" / "blue.txt").write_text("dark blue\nlight blue\n")
    (lists / "unused.txt").write_text("green\n")
    Path("batch", "rows.txt").write_text("a __colour__ ball\n")
    wildcards = {"beside": [], "relative": ["prompts.wildcards=lists"], "absolute": [f"prompts.wildcards={lists}"]}
    config = load_config(None, ["prompts.expand=all", *wildcards[where]])
    submission = prepare("batch/rows.txt", config, "/out")
    sent = {"prompts.txt", "config.yaml", "word-lists/colour.txt", "word-lists/of/blue.txt"}
    assert set(submission.files) == sent and submission.num_clips == 3
    for name, content in submission.files.items():
        Path("job", name).parent.mkdir(parents=True, exist_ok=True)
        Path("job", name).write_bytes(content)
    monkeypatch.chdir("job")
    assert prepare("prompts.txt", load_config(Path("config.yaml")), "/out").num_clips == 3
    (lists / "colour.txt").write_text("red\ngreen\n")
    monkeypatch.chdir(tmp_path)
    assert prepare("batch/rows.txt", config, "/out").digest != submission.digest, "other words are another batch"


def test_an_image_that_the_job_would_look_for_elsewhere_is_refused(tmp_path: Path):
    picture(tmp_path / "a.png")
    (tmp_path / "batch").mkdir()
    rows = tmp_path / "batch" / "rows.jsonl"
    rows.write_text('{"prompt": "moving left", "image": "../a.png"}')
    with pytest.raises(ValueError, match=r"a\.png: outside the prompt file's folder.*absolute path on the cluster"):
        prepare(str(rows), load_config(None), "/out")


def test_more_than_ray_sends_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packing, "MAX_BYTES", 10)
    picture(tmp_path / "a.png")
    with pytest.raises(ValueError, match="more than 0 MiB, which Ray does not send; put them where the cluster"):
        prepare([{"prompt": "moving left", "image": str(tmp_path / "a.png")}], load_config(None), "/out", tmp_path)


def test_a_file_too_large_to_send_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "big.safetensors").open("wb") as file:
        file.truncate(1 << 40)  # a sparse file, which would not fit in memory
    config = load_config(None, ["model.checkpoint=/elsewhere/ltx", "model.loras=[{path: big.safetensors}]"])
    with pytest.raises(ValueError, match=r"big\.safetensors: .* more than 90 MiB, which Ray does not send"):
        prepare(["moving left"], config, "/out")


@pytest.mark.parametrize("name", ["missing.safetensors", "folder", "empty.safetensors"])
def test_a_lora_of_the_config_that_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.safetensors").touch()
    config = load_config(None, ["model.checkpoint=/elsewhere/ltx", f"model.loras=[{{path: {name}}}]"])
    with pytest.raises(ValueError, match=f"^model.loras: {tmp_path / name}: no such file.*working directory"):
        prepare(["moving left"], config, "/out")


def test_loras_travel_and_are_not_read_for_a_checkpoint_that_is_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "l").mkdir()
    save_file({"unknown": np.zeros(2, np.float32)}, tmp_path / "l" / "style.safetensors")
    config = load_config(None, ["model.checkpoint=/elsewhere/ltx", "model.loras=[{path: l/style.safetensors}]"])
    assert "l/style.safetensors" in prepare(["moving left"], config, "/out").files
    with pytest.raises(ValueError, match="style.safetensors"):
        here = load_config(None, ["model.loras=[{path: l/style.safetensors}]"])
        prepare(["moving left"], here, "/out")


def test_one_content_in_two_formats_is_two_batches(tmp_path: Path):
    digests: set[str] = set()
    for name in ("rows.txt", "rows.yaml"):
        (tmp_path / name).write_text("- a red ball\n")
        digests.add(prepare(str(tmp_path / name), load_config(None), "/out").digest)
    assert len(digests) == 2


def test_an_id_is_the_batch_and_its_attempt(prompts: Path):
    config = load_config(None)
    one, other = prepare(str(prompts), config, "/out/a"), prepare(str(prompts), config, "/out/b")
    assert one.digest == prepare(str(prompts), config, "/out/a").digest != other.digest
    assert one.next_id([]) == f"ltx-{one.digest}-1"
    assert one.next_id([f"ltx-{one.digest}-9", f"ltx-{one.digest}-10", f"ltx-{other.digest}-70"]).endswith("-11")


@pytest.mark.parametrize("checkpoint", ["/elsewhere/ltx", "Lightricks/LTX-Video", "Lightricks/LTX-Video@0123abcd"])
def test_a_checkpoint_that_is_elsewhere_leaves_the_rest_to_the_cluster(prompts: Path, checkpoint: str):
    config = load_config(None, [f"model.checkpoint={checkpoint}"])
    assert not prepare(str(prompts), config, "/out").checkpoint_is_here
    prompts.write_text("prompt,num_frames\na,24\n")
    with pytest.raises(ValueError, match="num_frames: 24 is not a multiple of 8 plus 1"):
        prepare(str(prompts), config, "/out")


@pytest.mark.fault(6)
@pytest.mark.parametrize(
    ("text", "name", "clips"),
    [
        ('[{"prompt": "a"},\n {"prompt": "b"}]', "prompts.json", 2),
        ('["a", "b", "c"]', "prompts.json", 3),
        ('\ufeff{"prompt": "a"}\n{"prompt": "b"}\n', "prompts.jsonl", 2),
        ('{\n  "prompt": "a"\n}', "prompts.json", 1),
        ("[close-up] a face\na tree\n", "prompts.txt", 2),
    ],
)
def test_standard_input_is_packed_as_what_it_is(monkeypatch: pytest.MonkeyPatch, text: str, name: str, clips: int):
    """Packed as .txt, a list in JSON would be refused on the cluster, or each of its lines would become a prompt."""
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(text.encode())))
    submission = prepare("-", load_config(None), "/out")
    assert submission.files[name] == text.encode() and submission.num_clips == clips
    assert submission.arguments[2] == name


@pytest.mark.parametrize("checkpoint", ["demo", "/elsewhere/ltx"])
def test_prompts_at_a_url_are_downloaded_once(monkeypatch: pytest.MonkeyPatch, checkpoint: str):
    """What is checked is what is sent, even if the file changes meanwhile."""
    store = fsspec.filesystem("memory")
    store.pipe("/bucket/list.csv", b"prompt,num_frames\nred,9\n")
    opened: list[str] = []
    open_binary = prompt_sources.open_binary

    def open_and_count(source: str) -> AbstractContextManager[BinaryIO]:
        opened.append(source)
        return open_binary(source)

    monkeypatch.setattr(prompt_sources, "open_binary", open_and_count)
    try:
        prepare("memory://bucket/list.csv", load_config(None, [f"model.checkpoint={checkpoint}"]), "/out")
    finally:
        store.store.clear()
    assert opened == ["memory://bucket/list.csv"]


def test_parquet_files_are_checked_as_they_are_sent(tmp_path: Path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.table({"prompt": ["moving left", "moving up"]}), path)
    submission = prepare(str(path), load_config(None), "/out")
    assert submission.files["prompts.parquet"] == path.read_bytes() and submission.num_clips == 2


def test_a_prompt_file_too_large_to_send_is_refused(tmp_path: Path):
    path = tmp_path / "rows.parquet"
    with path.open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(ValueError, match=r"rows\.parquet: larger than 64 MiB; split the file"):
        prepare(str(path), load_config(None), "/out")


def test_mistakes_in_standard_input_name_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(b'{"prompt": "a"}\n{"prompt": "b", "heigth": 1}\n')))
    with pytest.raises(ValueError, match="^<stdin>:2: heigth: unknown key; did you mean height"):
        prepare("-", load_config(None), "/out")


@pytest.mark.parametrize(
    ("row", "version"),
    [
        ({"audio_guidance_scale": 4.0}, "auto"),
        ({"audio_guidance_scale": 4.0, "stg_scale": 1.0}, "2.3"),
        ({"sigmas": [1.0, 0.7, 0.4]}, "2.0-distilled"),
        ({"num_inference_steps": 20}, "2.5"),
        ({"timesteps": [1000, 500]}, "auto"),
        ({"timesteps": [1000, 500]}, "0.9.8-2b-distilled"),
    ],
)
def test_a_model_elsewhere_may_be_of_either_family(row: dict[str, object], version: str):
    config = load_config(None, ["model.checkpoint=/elsewhere/model", f"model.version={version}"])
    assert prepare([{"prompt": "a"} | row], config, "/out").num_clips == 1


@pytest.mark.parametrize(
    ("row", "version", "message"),
    [
        ({"audio_guidance_scale": 4.0, "height": 130}, "auto", "^prompts:1: height: 130 is not a multiple of 32"),
        ({"audio_guidance_scale": 4.0}, "0.9.5", "audio_guidance_scale: is only for LTX-2"),
        ({"num_frames": 1201}, "2.3", "1201 at 24 per second are more than 20 seconds"),
        ({}, "1.0", "^model.version: no preset '1.0'; use auto, .*0.9.8-13b-dev.*2.3-distilled"),
    ],
)
def test_what_no_model_elsewhere_could_render_is_refused(row: dict[str, object], version: str, message: str):
    config = load_config(None, ["model.checkpoint=/elsewhere/model", f"model.version={version}"])
    with pytest.raises(ValueError, match=message):
        prepare([{"prompt": "a"} | row], config, "/out")


@pytest.mark.parametrize(
    ("row", "settings"),
    [
        ({"second_pass": {"timesteps": [900, 500]}}, ["model.upscaler=/elsewhere/upscaler"]),
        ({"recipe": "two_passes"}, ["model.upscaler=/elsewhere/upscaler"]),
        ({"recipe": "two_passes"}, ["model.upscaler=/elsewhere/upscaler", "model.version=0.9.7-13b-dev"]),
        ({"second_pass": {"sigmas": [0.9, 0.7]}}, ["model.version=2.3"]),
        ({"recipe": "two_passes", "height": 1024}, ["model.version=2.3-distilled"]),
        ({"height": 544}, ["model.version=2.3-distilled"]),
    ],
)
def test_a_model_elsewhere_may_have_an_upscaler(row: dict[str, object], settings: list[str]):
    """LTX-Video's upscaler is a setting, LTX-2's is part of the checkpoint. Only two passes forbid a height of 544."""
    config = load_config(None, ["model.checkpoint=/elsewhere/model", *settings])
    assert prepare([{"prompt": "a"} | row], config, "/out").num_clips == 1


@pytest.mark.parametrize(
    ("row", "settings"),
    [
        ({"recipe": "two_passes"}, ["model.version=0.9.7-13b-dev"]),
        ({"recipe": "two_passes", "height": 544}, ["model.version=2.3-distilled"]),
    ],
)
def test_two_passes_elsewhere_are_checked(row: dict[str, object], settings: list[str]):
    config = load_config(None, ["model.checkpoint=/elsewhere/model", *settings])
    with pytest.raises(ValueError, match="set model.upscaler|complete latent_upsampler/|not a multiple of 64"):
        prepare([{"prompt": "a"} | row], config, "/out")


REASON = (
    ": cannot be checked, as the model's files are not on this machine; run `ltx-dist render` on the cluster's head"
)


@pytest.mark.parametrize(
    ("row", "settings", "message"),
    [
        ({"loras": ["/lora"]}, [], f"prompts:1: loras{REASON}, or name LoRAs for all rows as model.loras"),
        ({"reference": "/video.mp4"}, ["model.loras=[{path: /lora}]"], f"prompts:1: reference{REASON}"),
        ({"vary": {"loras": {"a": ["/lora"], "b": []}}}, [], f"prompts:1: vary: loras{REASON}"),
        ({"vary": {"reference": ["/a.mp4", "/b.mp4"]}}, [], f"prompts:1: vary: reference{REASON}"),
        ({"second_pass": {"loras": ["/lora"]}}, [], f"prompts:1: second_pass: loras{REASON}"),
        ({}, ["defaults.vary={loras: {a: [/lora]}}"], f"--set defaults.vary={{loras: {{a: [/lora]}}}}: loras{REASON}"),
    ],
)
def test_loras_of_single_clips_need_the_model(row: dict[str, object], settings: list[str], message: str):
    """Each message has one remedy that works: model.loras would be of no use for what applies to some rows only."""
    config = load_config(None, ["model.checkpoint=/elsewhere/model", *settings])
    with pytest.raises(ValueError) as caught:
        prepare([{"prompt": "a"} | row], config, "/out")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("settings", "output", "message"),
    [
        (["model.upscaler=./up"], "/out", "model.upscaler: ./up is relative"),
        (["model.checkpoint=./ltx"], "/out", "model.checkpoint: ./ltx is relative"),
        (["model.checkpoint=/x", "model.text_encoder=t5/../t5"], "/out", "model.text_encoder: t5/../t5 is relative"),
        ([], "clips", "--output: clips is relative"),
    ],
)
def test_what_would_be_another_thing_on_the_cluster_is_refused(
    prompts: Path, settings: list[str], output: str, message: str
):
    with pytest.raises(ValueError, match=message):
        prepare(str(prompts), load_config(None, settings), output)


@contextmanager
def server(status: int, body: bytes) -> Iterator[int]:
    """Start a server that answers everything with this, on every address of this machine. Yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("0.0.0.0", 0), Handler) as http:
        thread = Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield http.server_address[1]
        http.shutdown()


RAY = json.dumps({"ray_version": "2.60.0"}).encode()
OUTSIDE = "0.0.0.0"
"""This leads to this machine on Linux, but is no loopback address, so it stands for any other machine."""


def test_a_server_that_lets_anyone_in_is_refused_unless_it_is_this_machine():
    with server(200, RAY) as port:
        with pytest.raises(ValueError, match="lets anyone run code there, without a token"):
            check_job_server(f"http://{OUTSIDE}:{port}", insecure=True)
        assert not check_job_server(f"http://127.0.0.1:{port}/").wants_token
        assert not check_job_server(f"http://localhost:{port}").wants_token


def test_plain_http_to_another_machine_takes_an_explicit_word(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a-token")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with server(401, b"Unauthorized: Missing authentication token") as port:
        with pytest.raises(ValueError, match="plain http to another machine.*--insecure"):
            check_job_server(f"http://{OUTSIDE}:{port}")
        assert check_job_server(f"http://{OUTSIDE}:{port}", insecure=True).wants_token


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:6379", "not that of a job server"),
        ("ray://127.0.0.1:10001", "not that of a job server"),
        ("http://user:secret@127.0.0.1:8265", "not that of a job server"),
        ("http://127.0.0.1:port", "not that of a job server"),
        ("http://127.0.0.1:1", "nothing answers at http://127.0.0.1:1"),
    ],
)
def test_other_addresses_are_refused(address: str, message: str):
    with pytest.raises(ValueError, match=message):
        check_job_server(address)


@pytest.mark.parametrize(("status", "body"), [(200, b"<html>"), (200, b"{}"), (404, b""), (500, b"")])
def test_another_kind_of_server_is_told_of(status: int, body: bytes):
    with server(status, body) as port, pytest.raises(ValueError, match="is not a Ray job server"):
        check_job_server(f"http://127.0.0.1:{port}")
