"""`ltx-dist decode`: other settings for decoding and for the mp4, for clips whose latents were kept."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tiny
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from ltx_dist.cli import app
from ltx_dist.models.ltx_video import load as loading
from ltx_dist.models.ltx_video.decode import Decode
from ltx_dist.pipeline.keys import KEY_VERSION
from ltx_dist.report.verify import verify_folder
from ltx_dist.store.lock import folder_lock
from ltx_dist.store.tensor_file import pack, read_facts

NAMES = ["001-one", "002-two", "003-three"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", "0.9.1")


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """Three clips with their latents."""
    out = tmp_path_factory.mktemp("rendered") / "out"
    result = run(*render_arguments(out, checkpoint), "--keep-latents")
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture
def out(rendered: Path, tmp_path: Path) -> Path:
    return shutil.copytree(rendered, tmp_path / "out")


def render_arguments(out: Path, checkpoint: Path) -> list[str]:
    """A checkpoint that is given by a relative path must also be found from another folder."""
    prompts = out.parent / "prompts.txt"
    prompts.write_text("one\ntwo\nthree\n")
    settings = [
        f"model.checkpoint={os.path.relpath(checkpoint)}", "defaults.height=64", "defaults.width=128",
        "defaults.num_frames=9", "defaults.num_inference_steps=2", "placement.threads=1", "output.preset=ultrafast",
    ]  # fmt: skip
    return ["render", str(prompts), "-o", str(out), *(argument for s in settings for argument in ("--set", s))]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def record(out: Path) -> dict[str, Any]:
    return json.loads((out / "run.json").read_text())


def sidecars(out: Path) -> dict[str, dict[str, Any]]:
    return {name: json.loads((out / f"{name}.json").read_text()) for name in NAMES}


def spool(out: Path) -> Path:
    return out / ".ltx-dist" / "spool"


def test_a_run_tells_its_order_and_its_checkpoint(rendered: Path, checkpoint: Path):
    told = record(rendered)
    assert told["requests"] == NAMES
    assert told["checkpoint"] == sidecars(rendered)[NAMES[0]]["checkpoint"]
    assert set(told["checkpoint"]["sha256"]) >= {"vae", "transformer", "text_encoder"}


def test_clips_are_decoded_again_and_only_decoded(out: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def load(*_: object) -> None:
        raise AssertionError("only the VAE is needed")

    monkeypatch.setattr(loading, "load_text_encoder", load)
    monkeypatch.setattr(loading, "load_transformer", load)
    monkeypatch.chdir(tmp_path)  # another folder than for the render
    before = sidecars(out)
    result = run("decode", out, "--set", "output.crf=35")
    assert result.exit_code == 0, result.output
    assert [worker["stages"] for worker in record(out)["workers"]] == [["decode"]]
    assert record(out)["requests"] == NAMES and record(out)["done"] == 3
    for name, after in sidecars(out).items():
        for same in ("latents_sha256", "frames_sha256", "request"):
            assert after[same] == before[name][same], same
        assert after["checkpoint"]["sha256"] == before[name]["checkpoint"]["sha256"]
        assert after["mp4_sha256"] != before[name]["mp4_sha256"] and after["render_key"] != before[name]["render_key"]
    assert all(verdict.problem is None for verdict in verify_folder(out))
    assert {path.stem for path in spool(out).iterdir()} == set(NAMES), "and can be decoded once more"


def test_settings_not_given_are_those_of_the_render(out: Path):
    before = sidecars(out)
    assert "nothing to do" in run("decode", out).output
    assert run("decode", out, "--set", "output.crf=35").exit_code == 0
    assert run("decode", out).exit_code == 0
    assert {name: s["mp4_sha256"] for name, s in sidecars(out).items()} == {
        name: s["mp4_sha256"] for name, s in before.items()
    }


@pytest.mark.parametrize(
    ("as_made", "other"),
    [
        ("decode.tile_size=off", "decode.tile_size=96"),
        ("model.vae_precision=float32", "model.vae_precision=bfloat16"),
    ],
    ids=["tiles", "precision of the VAE"],
)
def test_other_decoding_is_other_frames_of_the_same_latents(out: Path, as_made: str, other: str):
    before = sidecars(out)
    assert "nothing to do" in run("decode", out, "--set", as_made).output, "that is how they were made"
    result = run("decode", out, "--set", other)
    assert result.exit_code == 0, result.output
    for name, after in sidecars(out).items():
        assert after["latents_sha256"] == before[name]["latents_sha256"]
        assert after["frames_sha256"] != before[name]["frames_sha256"]


def test_clips_without_latents_are_named_and_stay(out: Path):
    (spool(out) / "002-two.safetensors").unlink()
    (spool(out) / "003-three.safetensors").write_bytes(b"torn")
    before = {name: (out / f"{name}.mp4").read_bytes() for name in NAMES}
    result = run("decode", out, "--set", "output.crf=35")
    assert result.exit_code == 3, result.output
    assert "skipped 2 clips without kept latents: 002-two, 003-three" in result.output
    changed = {name for name in NAMES if (out / f"{name}.mp4").read_bytes() != before[name]}
    assert changed == {"001-one"}
    told = record(out)
    assert (told["submitted"], told["done"], told["failed"], told["remaining"]) == (3, 1, 0, 2)
    assert told["exit_code"] == 3


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("no latents", "none of 3 clips has latents that can be decoded: none were kept; render with --keep-latents"),
        ("no config", "no clips of `ltx-dist render` are here"),
        ("other weights", "they were made with other weights, or by an earlier version of ltx_dist; render them again"),
    ],
)
def test_what_cannot_be_decoded_is_told_with_the_remedy(out: Path, checkpoint: Path, damage: str, message: str):
    if damage == "no latents":
        shutil.rmtree(spool(out))
    elif damage == "no config":
        (out / ".ltx-dist" / "config.json").unlink()
    else:
        config = json.loads((out / ".ltx-dist" / "config.json").read_text())
        config["model"]["checkpoint"] = str(tiny.save_checkpoint(out.parent / "other", "0.9.5"))
        (out / ".ltx-dist" / "config.json").write_text(json.dumps(config))
    result = run("decode", out, "--set", "output.crf=35")
    assert result.exit_code == 2 and message in result.output.replace("\n", " "), result.output


def test_a_crafted_file_of_latents_is_refused(out: Path):
    """The name in the file would lead outside of the folder."""
    path = spool(out) / "002-two.safetensors"
    told = json.loads(read_facts(path)["request"]) | {"request_id": "../escaped"}
    tensors = load_file(path)
    path.write_bytes(pack("k", tensors, {"embeds_dtype": "float32", "request": json.dumps(told)}))
    result = run("decode", out, "--set", "output.crf=35")
    assert result.exit_code == 2 and "request_id: '../escaped' is not the file's name" in result.output
    assert not list(out.parent.glob("escaped*"))


@pytest.mark.parametrize(
    "override",
    ["model.precision=bfloat16", "defaults.seed=3", "recovery.spool_gb=1", "crf=3", "output.name={index}-{name}"],
)
def test_what_decides_the_latents_or_nothing_is_refused(out: Path, override: str):
    result = run("decode", out, "--set", override)
    assert result.exit_code == 2 and f"--set {override}: not a setting of decoding" in result.output.replace("\n", " ")


@pytest.mark.parametrize("sidecar", ["5", "null", '["meta"]'])
def test_a_sidecar_that_is_not_ours_is_written_again(out: Path, sidecar: str):
    (out / "002-two.json").write_text(sidecar)
    result = run("decode", out, "--set", "output.crf=35")
    assert result.exit_code == 0, result.output
    assert sidecars(out)["002-two"]["status"] == "done"


def test_a_folder_in_use_is_left_alone(out: Path):
    with folder_lock(out):
        result = run("decode", out, "--set", "output.crf=35")
    assert result.exit_code == 2 and "in use by the run with process id" in result.output


@pytest.mark.slow
def test_a_decode_that_is_killed_denoises_nothing_when_it_goes_on(tmp_path: Path, checkpoint: Path):
    """After a SIGKILL while clips are decoded, no denoising step is repeated for clips whose latents are on disk."""
    out = tmp_path / "out"
    in_one_wave = ["--set", "placement.residency=time_sliced", "--set", "placement.wave=3"]
    command = [sys.executable, "-m", "ltx_dist.cli", *render_arguments(out, checkpoint), *in_one_wave]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 180
    while len(list(spool(out).glob("*.safetensors"))) < 3 and not list(out.glob("*.mp4")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.wait()
    kept = {path.stem for path in spool(out).glob("*.safetensors")}
    assert kept, "killed after denoising, before all was published"
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
    steps = dict.fromkeys(kept, 0)
    for event in record(out)["events"]:
        if event["stage"] == "denoise" and event["request_id"] in kept:
            steps[event["request_id"]] += sidecars(out)[event["request_id"]]["request"]["num_inference_steps"]
    assert sum(steps.values()) == 0, f"denoising steps run again: {steps}"
    assert record(out)["done"] == 3


@pytest.mark.parametrize("kind", ["file", "link", "socket"])
def test_what_lies_in_the_place_of_the_latents_is_named(out: Path, tmp_path: Path, kind: str):
    spool(out).rename(tmp_path / "aside")
    if kind == "file":
        spool(out).touch()
    elif kind == "link":
        spool(out).symlink_to(tmp_path / "aside")
    else:
        with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(spool(out).parent):
            server.bind("spool")
    result = run("decode", out)
    assert result.exit_code == 74, result.output
    assert f"{spool(out)}: a link or a file in the place of one of our folders" in result.output.replace("\n", "")


def test_latents_that_were_kept_once_outlive_a_run_without_the_wish(out: Path, checkpoint: Path):
    result = run(*render_arguments(out, checkpoint))
    assert result.exit_code == 0 and "3 already up to date; nothing to do" in result.output
    assert len(list((out / ".ltx-dist" / "spool").glob("*.safetensors"))) == 3
    result = run("decode", out, "--set", "output.crf=30")
    assert result.exit_code == 0, result.output


def test_a_clip_of_an_earlier_version_is_rendered_again_and_the_run_says_why(out: Path, checkpoint: Path):
    sidecar = out / "002-two.json"
    told = json.loads(sidecar.read_text())
    assert told.pop("key_version") == KEY_VERSION
    sidecar.write_text(json.dumps(told | {"render_key": "12" * 32}))
    (out / "002-two.mp4").write_bytes((out / "002-two.mp4").read_bytes()[:-10])  # so that its seal has no current key
    result = run(*render_arguments(out, checkpoint), "--keep-latents")
    assert result.exit_code == 0, result.output
    said = result.output.replace("\n", " ")
    assert (
        "1 clip made by an earlier version of ltx_dist will be rendered again" in said
        and "2 already up to date" in said
    )
    assert "existing clips that have other settings" not in said
    again = json.loads(sidecar.read_text())
    assert again["key_version"] == KEY_VERSION and again["latents_sha256"] == told["latents_sha256"]


def degraded(out: Path, name: str) -> Path:
    """The clip's sidecar, which now says that it was decoded in smaller pieces because memory ran out."""
    sidecar = out / f"{name}.json"
    told = json.loads(sidecar.read_text())
    told["stages"]["decode"] = {"worker": "cpu:0", "after_no_memory": "tiles of 256 px and 16 frames"}
    sidecar.write_text(json.dumps(told))
    return sidecar


def test_exact_makes_a_clip_again_that_was_made_otherwise_for_want_of_memory(out: Path, checkpoint: Path):
    sidecar = degraded(out, "002-two")
    result = run(*render_arguments(out, checkpoint))
    assert "3 already up to date; nothing to do" in result.output
    result = run(*render_arguments(out, checkpoint), "--exact")
    assert result.exit_code == 0 and "2 already up to date" in result.output, result.output
    assert "after_no_memory" not in json.loads(sidecar.read_text())["stages"]["decode"]


def test_a_clip_that_exact_could_not_make_again_is_still_known_for_what_it_is(
    out: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    sidecar, mp4 = degraded(out, "002-two"), (out / "002-two.mp4").read_bytes()
    before = sidecar.read_bytes()

    def fail(*arguments: Any) -> Any:
        raise RuntimeError("no memory")

    monkeypatch.setattr(Decode, "run", fail)
    result = run(*render_arguments(out, checkpoint), "--exact")
    assert result.exit_code == 3 and "no memory" in result.output, result.output
    assert sidecar.read_bytes() == before and (out / "002-two.mp4").read_bytes() == mp4
    monkeypatch.undo()
    result = run(*render_arguments(out, checkpoint), "--exact")
    assert result.exit_code == 0 and "2 already up to date" in result.output, "it is tried once more"
