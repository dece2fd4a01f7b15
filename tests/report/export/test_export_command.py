"""`ltx-dist export`: what is left out, what is refused, and that nothing half-written has a final name."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from clip_folder import publish
from typer.testing import CliRunner, Result

from ltx_dist.cli import app
from ltx_dist.report.export import destination
from ltx_dist.report.export.destination import link_or_copy, written_whole


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    publish(tmp_path / "out", "a")
    publish(tmp_path / "out", "coast")
    return tmp_path / "out"


def export(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_clips_that_are_not_finished_are_named_and_left_out(folder: Path, tmp_path: Path):
    publish(folder, "b", error="out of memory\nin line 3")
    (folder / "coast.json").unlink()
    result = export("vbench", folder, "-o", tmp_path / "new" / "vbench")
    assert result.exit_code == 3
    assert "b: left out: failed: out of memory\n" in result.stderr
    assert "coast: left out: coast.json is missing; rerunning the render command writes it again" in result.stderr
    assert "1 clip exported, 2 left out" in result.stdout
    assert [path.name for path in (tmp_path / "new" / "vbench").iterdir()] == ["a lighthouse-0.mp4"]


@pytest.mark.parametrize("format_", ["hf", "webdataset", "vbench", "csv"])
def test_texts_that_no_table_or_file_name_can_hold_are_left_out(folder: Path, tmp_path: Path, format_: str):
    """Crafted sidecars, and names that are not UTF-8; no input of ours makes such a clip."""
    sidecar = json.loads((folder / "a.json").read_text())
    sidecar["request"]["prompt"] = "\ud800"
    (folder / "a.json").write_text(json.dumps(sidecar))
    for ending in (".json", ".mp4"):
        shutil.copy(folder / f"coast{ending}", folder / os.fsdecode(b"\xff" + ending.encode()))
    result = export(format_, folder, "-o", tmp_path / ("new.csv" if format_ == "csv" else "new"))
    assert result.exit_code == 3 and "a: left out: a.json is damaged or not a sidecar" in result.stderr
    assert "1 clip exported, 2 left out" in result.stdout


def test_nothing_is_replaced(folder: Path, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "mine.csv").write_text("mine")
    for arguments in (("hf", folder, "-o", tmp_path / "mine"), ("csv", folder, "-o", tmp_path / "mine.csv")):
        result = export(*arguments)
        assert result.exit_code == 2 and "exists already and is never replaced" in result.stderr
    assert (tmp_path / "mine.csv").read_text() == "mine"
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_clips_that_were_copied_without_the_rest_are_exported(folder: Path, tmp_path: Path):
    for path in [*folder.glob("*.mp4"), *folder.glob("*.json")]:
        if path.name != "run.json":
            (tmp_path / "copies").mkdir(exist_ok=True)
            shutil.copy(path, tmp_path / "copies")
    result = export("vbench", tmp_path / "copies", "-o", tmp_path / "new")
    assert result.exit_code == 0 and "2 clips exported, 0 left out" in result.stdout


def test_an_empty_folder_is_filled(folder: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    assert export("hf", folder, "-o", tmp_path / "empty").exit_code == 0
    assert (tmp_path / "empty" / "README.md").exists()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["hff", "out", "-o", "x"], "hff: unknown format; did you mean hf?"),
        (["csv", "out", "-o", "x"], "-o x: this format writes a file; end its name in .csv"),
        (["sheet", "out", "-o", "x.gif"], "-o x.gif: this format writes a file; end its name in .jpg or .jpeg or .png"),
        (["hf", "out", "-o", "out/hf"], "-o out/hf: is inside the output folder"),
        (
            ["csv", "out", "-o", "~nobody-of-that-name/x.csv"],
            "-o: ~nobody-of-that-name/x.csv: that user has no home folder",
        ),
        (["hf", "none", "-o", "x"], "none: not an output folder of ltx-dist"),
        (["hf", ".", "-o", "x"], ".: not an output folder of ltx-dist"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], why: str
):
    monkeypatch.chdir(tmp_path)
    result = export(*arguments)
    assert result.exit_code == 2 and why in result.stderr, result.output
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_without_finished_clips_exports_nothing(tmp_path: Path):
    publish(tmp_path / "out", "a", error="boom")
    result = export("csv", tmp_path / "out", "-o", tmp_path / "clips.csv")
    assert result.exit_code == 2 and "no finished clip" in result.stderr and not (tmp_path / "clips.csv").exists()


@pytest.mark.parametrize("is_folder", [True, False])
def test_an_error_on_the_way_leaves_nothing(tmp_path: Path, is_folder: bool):
    place = tmp_path / "place.bin"
    with pytest.raises(KeyError), written_whole(place) as partial:
        if is_folder:
            partial.mkdir()
        (partial / "a" if is_folder else partial).write_bytes(b"half")
        assert not place.exists()
        raise KeyError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("has_links", [True, False])
def test_what_takes_the_name_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool):
    if not has_links:
        monkeypatch.setattr(destination.os, "link", _refuse)
    for name, make in (("file", lambda path: path.write_bytes(b"ours")), ("folder", lambda path: path.mkdir())):
        place = tmp_path / name
        with pytest.raises(OSError), written_whole(place) as partial:
            make(partial)
            place.write_bytes(b"theirs")
        assert place.read_bytes() == b"theirs"
    assert len(list(tmp_path.iterdir())) == 2


def test_without_hard_links_files_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(destination.os, "link", _refuse)
    (tmp_path / "a").write_bytes(b"clip")
    link_or_copy(tmp_path / "a", tmp_path / "new" / "b")
    assert (tmp_path / "new" / "b").read_bytes() == b"clip"
    with written_whole(tmp_path / "c") as partial:
        partial.write_bytes(b"table")
    assert (tmp_path / "c").read_bytes() == b"table"


def _refuse(*arguments: object, **more: object) -> None:
    raise PermissionError(1, "no hard links here")


def test_the_export_stays_when_a_clip_is_rendered_again(folder: Path, tmp_path: Path):
    assert export("vbench", folder, "-o", tmp_path / "vbench").exit_code == 0
    exported = tmp_path / "vbench" / "a lighthouse-0.mp4"
    before = exported.read_bytes()
    (folder / "a.json").unlink()
    (folder / "a.mp4").unlink()
    publish(folder, "a", seed=5)
    assert exported.read_bytes() == before


def test_a_bucket_is_exported_as_a_folder_is(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    url = f"local://{folder}"
    assert export("webdataset", url, "-o", tmp_path / "shards").exit_code == 0
    assert (tmp_path / "shards" / "shard-000000.tar").stat().st_size > 2 * (folder / "a.mp4").stat().st_size
    assert export("csv", url, "-o", tmp_path / "clips.csv").exit_code == 0
    assert f"{url}/coast.mp4" in (tmp_path / "clips.csv").read_text()
    assert json.loads((folder / "a.json").read_text())["status"] == "done"
