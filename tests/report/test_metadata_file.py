"""`metadata.jsonl`: every finished clip of the folder is a row, and nothing that was there is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from clip_folder import change_sidecar, publish
from typer.testing import CliRunner

from ltx_dist.cli import app
from ltx_dist.report.metadata_file import write_metadata


def rows(folder: Path) -> dict[str, dict[str, object]]:
    assert write_metadata(folder) is None
    lines = (folder / "metadata.jsonl").read_text().splitlines()
    return {row["file_name"]: row for row in map(json.loads, lines)}


def test_a_row_has_prompt_settings_digests_seconds_and_what_the_prompt_file_said_of_it(tmp_path: Path):
    publish(tmp_path, "storm", prompt="圆 in a storm", seed=7, meta={"category": "sea", "take": 2})
    row = rows(tmp_path)["storm.mp4"]
    assert (row["name"], row["prompt"], row["seed"], row["num_frames"]) == ("storm", "圆 in a storm", 7, 5)
    assert (row["meta.category"], row["meta.take"]) == ("sea", 2)
    assert (row["checkpoint"], row["seconds"], row["seconds.denoise"]) == ("demo", 1.5, 1.5)
    sidecar = json.loads((tmp_path / "storm.json").read_text())
    assert all(row[key] == sidecar[key] for key in ("render_key", "frames_sha256", "mp4_sha256", "mp4_bytes"))
    assert not any(isinstance(value, list | dict) for value in row.values())


def test_failed_clips_and_those_without_their_mp4_are_no_rows(tmp_path: Path):
    for name in ("a", "b", "c", "d"):
        publish(tmp_path, name, error="boom" if name == "b" else None)
    (tmp_path / "c.mp4").unlink()
    (tmp_path / "d.mp4").write_bytes(b"cut")
    assert set(rows(tmp_path)) == {"a.mp4"}


def test_every_column_has_values_of_one_kind(tmp_path: Path):
    publish(tmp_path, "a", meta={"take": 1, "share": 1, "only": "here"})
    publish(tmp_path, "b", meta={"take": "two", "share": 0.5}, timesteps=(1000.0, 500.0))
    first, second = rows(tmp_path).values()
    assert list(first) == list(second), "and in one order"
    assert (first["meta.take"], second["meta.take"]) == ("1", "two")
    assert (first["meta.share"], second["meta.share"]) == (1.0, 0.5) and type(first["meta.share"]) is float
    assert (first["meta.only"], second["meta.only"]) == ("here", None)
    assert (first["timesteps"], second["timesteps"]) == (None, "[1000.0, 500.0]")
    assert "second_pass" not in first, "a column without any value has no kind"


def test_a_second_run_adds_its_clips_to_those_of_the_first(tmp_path: Path):
    publish(tmp_path, "a")
    first = rows(tmp_path)["a.mp4"]
    publish(tmp_path, "b")
    assert rows(tmp_path) == {"a.mp4": first, "b.mp4": rows(tmp_path)["b.mp4"]}


def test_the_row_of_a_clip_whose_sidecar_is_lost_stays_while_its_mp4_does(tmp_path: Path):
    publish(tmp_path, "a")
    publish(tmp_path, "b")
    before = rows(tmp_path)
    (tmp_path / "a.json").unlink()
    assert rows(tmp_path) == before
    (tmp_path / "a.mp4").unlink()
    assert set(rows(tmp_path)) == {"b.mp4"}


@pytest.mark.parametrize("theirs", ['{"file_name": "a.mp4", "label": 1}\n', "no JSON\n", "[]\n"])
def test_a_file_of_that_name_that_is_not_ours_is_left_alone(tmp_path: Path, theirs: str):
    publish(tmp_path, "a")
    (tmp_path / "metadata.jsonl").write_text(theirs)
    problem = write_metadata(tmp_path)
    assert problem is not None and "not written by ltx-dist" in problem and "rename it" in problem
    assert (tmp_path / "metadata.jsonl").read_text() == theirs
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 0 and "not written by ltx-dist" in result.stderr


def test_a_sidecar_that_is_not_ours_breaks_nothing(tmp_path: Path):
    publish(tmp_path, "a")
    publish(tmp_path, "b")
    change_sidecar(tmp_path, "a", stages=[1], checkpoint="x", meta=3, versions=None, mp4_bytes=float("nan"))
    assert set(rows(tmp_path)) == {"b.mp4"}
    change_sidecar(tmp_path, "b", latents_sha256=float("inf"), settings=[], stages={"denoise": {"seconds": "long"}})
    assert set(rows(tmp_path)) == {"b.mp4"}
    change_sidecar(tmp_path, "b", stages={"denoise": {"seconds": 10**400}}, meta={"take": 10**400, "share": 0.5})
    publish(tmp_path, "c", meta={"take": 0.5})
    assert rows(tmp_path)["b.mp4"]["meta.take"] is None


def test_hugging_face_opens_a_folder_as_videos_with_all_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "TORCHCODEC_AVAILABLE", False)
    folder = tmp_path / "out"
    publish(folder, "a", seed=1, meta={"category": "sea", "mask_file_name": "m.png"})
    publish(folder, "coast-b", seed=2, prompt='"b"')
    publish(folder, "c", error="boom")
    rows(folder)
    found = datasets.load_dataset("videofolder", data_dir=str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    found = found.cast_column("video", datasets.Video(decode=False))
    assert [(row["name"], row["seed"], row["prompt"]) for row in found] == [
        ("a", 1, "a lighthouse"),
        ("coast-b", 2, '"b"'),
    ]
    assert [Path(row["video"]["path"]).name for row in found] == ["a.mp4", "coast-b.mp4"]
    assert found[0]["meta.category"] == "sea" and found[0]["meta.mask_filename"] == "m.png"
