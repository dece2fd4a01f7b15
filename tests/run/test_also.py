"""`output.also`: the files beside the mp4s are kept, resumed, verified, exported and shown with the clips."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import fsspec
import numpy as np
import pytest
import small_batch
import tiny
from PIL import Image
from small_batch import run
from typer.testing import Result

import ltx_dist
from ltx_dist.api.renderer import Renderer
from ltx_dist.media.mp4 import read_frames

STEPS = ("defaults.num_inference_steps=1",)
ALL = "output.also=[prores,ffv1,av1]"
ENDINGS = (".mov", ".mkv", ".webm")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", "0.9.5")


def render(out: object, checkpoint: Path, *more: str, also: str = ALL) -> Result:
    return small_batch.render(out, checkpoint, "--prompt", "one", "--prompt", "two", *more, settings=(*STEPS, also))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    folder = tmp_path_factory.mktemp("also") / "out"
    result = render(folder, checkpoint, "--keep-latents")
    assert result.exit_code == 0, result.output
    return folder


def again(out: Path, checkpoint: Path) -> set[str]:
    """The stages that a rerun ran; none if it kept all clips."""
    result = render(out, checkpoint, "--keep-latents")
    assert result.exit_code == 0, result.output
    if "nothing to do" in result.output:
        return set()
    return {event["stage"] for event in json.loads((out / "run.json").read_text())["events"]}


def test_the_sidecar_knows_them_and_a_rerun_keeps_them(out: Path, checkpoint: Path):
    told = json.loads((out / "001-one.json").read_text())
    assert set(told["also"]) == set(ENDINGS)
    for ending, file in told["also"].items():
        content = (out / f"001-one{ending}").read_bytes()
        assert file == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    frames = b"".join(frame.tobytes() for frame in read_frames(out / "001-one.mkv", ".mkv"))
    assert hashlib.sha256(frames).hexdigest() == told["frames_sha256"], "lossless"
    assert again(out, checkpoint) == set()


@pytest.mark.parametrize("ending", ENDINGS)
def test_one_that_is_lost_or_damaged_is_found_and_made_again(out: Path, checkpoint: Path, ending: str):
    file = out / f"002-two{ending}"
    whole = file.read_bytes()
    file.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    verified = run("verify", out)
    assert verified.exit_code == 3
    assert f"002-two{ending} is not the file that was published; remove it" in verified.output
    assert "rerunning" not in verified.output and again(out, checkpoint) == set(), "a rerun looks at its size alone"
    file.unlink()
    verified = run("verify", out)
    assert f"002-two{ending} is missing" in verified.output and "render 1 clip again: 002-two" in verified.output
    assert again(out, checkpoint) == {"decode", "encode_video"}
    assert file.read_bytes() == whole and run("verify", out).exit_code == 0


def test_a_lost_sidecar_is_written_again_with_them(out: Path, checkpoint: Path):
    sidecar = out / "002-two.json"
    also = json.loads(sidecar.read_text())["also"]
    sidecar.unlink()
    assert again(out, checkpoint) == set()
    assert json.loads(sidecar.read_text())["also"] == also


@pytest.mark.parametrize("sidecar", ["lost", "older"])
def test_without_its_sidecar_a_clip_that_lacks_one_is_made_again(out: Path, checkpoint: Path, sidecar: str):
    path, file = out / "002-two.json", out / "002-two.mov"
    whole = file.read_bytes()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mp4_sha256": "ab" * 32}))
    if sidecar == "lost":
        path.unlink()
    assert "the command that asked for it would rebuild 1 sidecar from its mp4" in run("verify", out).output
    file.unlink()
    verified = run("verify", out)
    assert "but 002-two.mov is missing" in verified.output and "render 1 clip again: 002-two" in verified.output
    assert again(out, checkpoint) == {"decode", "encode_video"}
    assert file.read_bytes() == whole and run("verify", out).exit_code == 0


def test_page_python_and_exports_have_them(out: Path, tmp_path: Path):
    assert run("report", out).exit_code == 0
    assert "001-one.mov" in (out / "index.html").read_text()
    clip = ltx_dist.clips(out)[0]
    assert clip.also == {ending: out / f"001-one{ending}" for ending in ENDINGS}
    rows = [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]
    assert set(json.loads(rows[0]["also"])) == set(ENDINGS)
    assert run("export", "frames", out, "-o", tmp_path / "frames").exit_code == 0
    pictures = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "frames" / "001-one").iterdir())]
    assert hashlib.sha256(np.stack(pictures).tobytes()).hexdigest() == clip.digests["frames_sha256"]


def test_videofolder_reads_the_clips_alone(out: Path, tmp_path: Path):
    datasets = pytest.importorskip("datasets", reason="needs datasets; launch/setup.sh dev installs it")
    assert run("report", out).exit_code == 0
    found = datasets.load_dataset("videofolder", data_dir=str(out), split="train", cache_dir=str(tmp_path))
    assert sorted(found["name"]) == ["001-one", "002-two"]


def test_without_them_the_clip_is_made_again_and_they_are_removed(out: Path, checkpoint: Path):
    mp4 = json.loads((out / "001-one.json").read_text())["frames_sha256"]
    result = render(out, checkpoint, "--keep-latents", also="output.also=[]")
    assert result.exit_code == 0, result.output
    told = json.loads((out / "001-one.json").read_text())
    assert "also" not in told and told["frames_sha256"] == mp4
    assert not [path for path in out.iterdir() if path.suffix in ENDINGS]


def test_they_go_to_a_bucket_and_count_there(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LTX_DIST_CACHE", str(tmp_path / "cache"))
    store, url = fsspec.filesystem("memory"), "memory://also/out"
    assert render(url, checkpoint).exit_code == 0
    assert all(store.exists(f"/also/out/001-one{ending}") for ending in (".mp4", ".json", *ENDINGS))
    assert "nothing to do" in render(url, checkpoint).output
    assert run("verify", url).exit_code == 0
    store.rm("/also/out/001-one.mov")
    assert "001-one.mov is missing" in run("verify", url).output
    assert "2 done (1 of them earlier)" in render(url, checkpoint).output
    assert store.exists("/also/out/001-one.mov")
    store.rm("/also", recursive=True)


def test_a_file_that_is_no_codec_of_ours_is_refused(tmp_path: Path, checkpoint: Path):
    assert (
        "'h264' is not one of 'prores', 'ffv1' or 'av1'"
        in render(tmp_path, checkpoint, also="output.also=[h264]").output
    )
    assert (
        "'prores' is not a list; put it in brackets" in render(tmp_path, checkpoint, also="output.also=prores").output
    )
    with pytest.raises(ltx_dist.InputError, match="output.also: a Renderer returns mp4s alone"):
        Renderer(checkpoint, {"output": {"also": ["ffv1"]}})
