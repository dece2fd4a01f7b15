"""Clips in folders of the output, by name or by template: everything that reads or resumes an output finds them."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import pytest
import small_batch
import tiny
from small_batch import run
from typer.testing import Result

from ltx_dist.inputs.config_file import load_config
from ltx_dist.run.batch import open_batch

ROWS = '{"prompt": "one", "name": "coast/storm"}\n{"prompt": "圆", "seed": 5}\n'
NAMES = ["coast/storm-0", "002-圆-5"]
TEMPLATE = "output.name={name}-{seed}"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", "0.9.5")


def render(out: object, checkpoint: Path, *more: str, rows: str = ROWS, template: str = TEMPLATE) -> Result:
    listed = "[" + ",".join(rows.splitlines()) + "]"
    return small_batch.render(out, checkpoint, "-", *more, settings=(template,), stdin=listed)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    folder = tmp_path_factory.mktemp("named") / "out"
    result = render(folder, checkpoint, "--keep-latents")
    assert result.exit_code == 0, result.output
    return folder


def test_clips_lie_in_their_folders_and_are_kept(out: Path, checkpoint: Path):
    assert {f"{name}.{ending}" for name in NAMES for ending in ("mp4", "json", "webp")} < files(out)
    record = json.loads((out / "run.json").read_text())
    assert record["requests"] == NAMES and record["done"] == 2
    again = render(out, checkpoint, "--keep-latents")
    assert again.exit_code == 0 and "2 already up to date; nothing to do" in again.output


def test_a_lost_clip_is_made_again_from_its_latents(out: Path, checkpoint: Path):
    (out / "coast" / "storm-0.mp4").unlink()
    verified = run("verify", out)
    assert verified.exit_code == 3 and "coast/storm-0: storm-0.mp4 is missing" in verified.output
    again = render(out, checkpoint, "--keep-latents")
    assert again.exit_code == 0 and "1 already up to date" in again.output
    stages = {event["stage"] for event in json.loads((out / "run.json").read_text())["events"]}
    assert stages == {"decode", "encode_video"}, "the spool has it under its whole name"
    assert run("verify", out).exit_code == 0


def test_page_table_and_exports_have_them(out: Path, tmp_path: Path):
    assert run("report", out).exit_code == 0
    assert "coast/storm-0.mp4" in (out / "index.html").read_text()
    rows = [json.loads(line)["file_name"] for line in (out / "metadata.jsonl").read_text().splitlines()]
    assert set(rows) == {f"{name}.mp4" for name in NAMES}
    assert run("export", "webdataset", out, "-o", tmp_path / "shards").exit_code == 0
    assert run("export", "hf", out, "-o", tmp_path / "hf").exit_code == 0
    assert (tmp_path / "hf" / "videos" / "coast" / "storm-0.mp4").is_file()


def test_they_are_decoded_again(out: Path):
    before = (out / "coast" / "storm-0.mp4").read_bytes()
    result = run("decode", out, "--set", "output.crf=40", "--executor", "local")
    assert result.exit_code == 0, result.output
    assert (out / "coast" / "storm-0.mp4").read_bytes() != before
    assert json.loads((out / "coast" / "storm-0.json").read_text())["settings"]["output.crf"] == 40


def test_a_bucket_has_them_too(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LTX_DIST_CACHE", str(tmp_path / "cache"))
    store, url = fsspec.filesystem("memory"), "memory://named/out"
    assert render(url, checkpoint).exit_code == 0
    found = {path.removeprefix("/named/out/") for path in store.find("/named/out")}
    assert {f"{name}.{ending}" for name in NAMES for ending in ("mp4", "json", "webp")} < found
    monkeypatch.setenv("LTX_DIST_CACHE", str(tmp_path / "another machine's cache"))
    again = render(url, checkpoint)
    assert again.exit_code == 0 and "2 already up to date; nothing to do" in again.output
    assert "2 of 2 clips are intact" in run("verify", url).output
    store.pipe_file("/named/out/coast/run.json", b"{}")  # now it is the output of another run
    assert "1 of 1 clips are intact" in run("verify", url).output
    store.rm("/named", recursive=True)


def test_what_is_in_the_way_is_found_before_anything_is_rendered(checkpoint: Path, tmp_path: Path):
    for name, make in {
        "file": lambda path: path.write_text("mine"),
        "link": lambda path: path.symlink_to(tmp_path),
        "run": lambda path: (path / ".ltx-dist").mkdir(parents=True),
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        make(folder / "coast")
        result = render(folder, checkpoint)
        assert result.exit_code == 74 and "cannot write the output" in result.output and "coast" in result.output
        assert not list(folder.rglob("*.mp4"))


def test_a_copied_command_makes_the_same_name(out: Path):
    sidecar = json.loads((out / "coast" / "storm-0.json").read_text())
    assert not any(key in sidecar["settings"] for key in ("output.name", "output.poster"))


def test_a_clash_is_told_by_plan(checkpoint: Path):
    result = render("nowhere", checkpoint, template="output.name={width}")
    assert result.exit_code == 2
    assert "output.name: clip 2 (002-圆): '64' is the name of clip 1 (coast/storm) too" in result.output


def test_groups_of_the_prompt_file_become_folders_and_variations_keep_their_notes(checkpoint: Path):
    rows = [{"prompt": "one", "name": "storm", "seed": 1, "num_videos_per_prompt": 2, "meta": {"group": "Küste"}}]
    batch = open_batch(rows, load_config(None, ["output.name={meta.group}/{name}", f"model.checkpoint={checkpoint}"]))
    assert batch.names == ("Küste/storm-seed1", "Küste/storm-seed2")
    assert [batch.notes[name]["meta"] for name in batch.names] == [{"group": "Küste"}] * 2
    assert [batch.notes[name]["variation"]["values"]["seed"] for name in batch.names] == [1, 2]
