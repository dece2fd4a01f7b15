"""What each format of `ltx-dist export` writes."""

from __future__ import annotations

import csv
import json
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clip_folder import NUM_FRAMES, SIZE, change_sidecar, publish
from PIL import Image

from ltx_dist.media.mp4 import read_video
from ltx_dist.report.export import webdataset
from ltx_dist.report.export.formats import FORMATS
from ltx_dist.report.finished_clips import finished_clips

NAMES = ["a", "b.1", "c"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    publish(folder, "a", seed=2, prompt="a stop sign", meta={"category": "sign"})
    publish(folder, "b.1", seed=1, prompt="a stop sign")
    publish(folder, "c", seed=0, prompt='the "other", 圆\u00a0')
    return folder


def export(format_: str, folder: Path, place: Path) -> Path:
    FORMATS[format_].writer()(finished_clips(folder)[0], place)
    return place


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def load(datasets: Any, *arguments: str, cache: Path, **more: Any) -> list[dict[str, Any]]:
    found = datasets.load_dataset(*arguments, split="train", cache_dir=str(cache), **more)
    assert isinstance(found.features["video"], datasets.Video)
    return list(found.cast_column("video", datasets.Video(decode=False)))


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch) -> Any:
    module = pytest.importorskip("datasets")
    monkeypatch.setattr(module.config, "TORCHCODEC_AVAILABLE", False)
    return module


def test_hf_is_a_data_set_folder_with_a_card(folder: Path, tmp_path: Path):
    place = export("hf", folder, tmp_path / "clips")
    assert files(place) == ["README.md", "metadata.jsonl", "videos/a.mp4", "videos/b.1.mp4", "videos/c.mp4"]
    rows = [json.loads(line) for line in (place / "metadata.jsonl").read_text().splitlines()]
    assert [row["file_name"] for row in rows] == ["videos/a.mp4", "videos/b.1.mp4", "videos/c.mp4"]
    assert (place / "videos/a.mp4").samefile(folder / "a.mp4"), "a hard link takes no room"
    card = (place / "README.md").read_text()
    assert "3 clips rendered with demo" in card and "n<1K" in card


def test_hugging_face_loads_what_hf_wrote(folder: Path, tmp_path: Path, datasets: Any):
    place = export("hf", folder, tmp_path / "clips")
    found = load(datasets, str(place), cache=tmp_path / "cache")
    assert [(row["name"], row["seed"]) for row in found] == [("a", 2), ("b.1", 1), ("c", 0)]
    assert [row["meta.category"] for row in found] == ["sign", None, None]
    assert Path(found[0]["video"]["path"]).read_bytes() == (folder / "a.mp4").read_bytes()


def members(shards: Sequence[Path]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for shard in shards:
        with tarfile.open(shard) as tar:
            for member in tar:
                content = tar.extractfile(member)
                assert content is not None and member.mtime == 0 and member.name not in found
                found[member.name] = content.read()
    return found


def test_webdataset_has_three_files_per_clip_side_by_side(folder: Path, tmp_path: Path):
    place = export("webdataset", folder, tmp_path / "shards")
    assert files(place) == ["shard-000000.tar"]
    found = members([place / "shard-000000.tar"])
    assert list(found)[:6] == ["a.mp4", "a.json", "a.txt", "b_1.mp4", "b_1.json", "b_1.txt"]
    assert found["b_1.mp4"] == (folder / "b.1.mp4").read_bytes()
    assert found["c.txt"].decode() == 'the "other", 圆\u00a0' and json.loads(found["a.json"])["seed"] == 2
    again = export("webdataset", folder, tmp_path / "again")
    assert (again / "shard-000000.tar").read_bytes() == (place / "shard-000000.tar").read_bytes()


def test_a_full_shard_is_followed_by_another(folder: Path, tmp_path: Path):
    clips, _ = finished_clips(folder)
    webdataset.write(clips, tmp_path / "shards", shard_bytes=1)
    names = files(tmp_path / "shards")
    assert names == ["shard-000000.tar", "shard-000001.tar", "shard-000002.tar"]
    assert len(members([tmp_path / "shards" / name for name in names])) == 9


def test_names_that_a_shard_cannot_tell_apart_are_refused(tmp_path: Path):
    for name in ("a.b", "a_b"):
        publish(tmp_path / "out", name)
    with pytest.raises(ValueError, match=r"a\.b and a_b: both are a_b in a shard; render one with another name"):
        export("webdataset", tmp_path / "out", tmp_path / "shards")


def test_the_webdataset_package_reads_the_shards(folder: Path, tmp_path: Path):
    reader = pytest.importorskip("webdataset")
    place = export("webdataset", folder, tmp_path / "shards")
    samples = list(reader.WebDataset(str(place / "shard-000000.tar"), shardshuffle=False).decode())
    assert [(one["__key__"], one["json"]["seed"], one["txt"]) for one in samples][:2] == [
        ("a", 2, "a stop sign"), ("b_1", 1, "a stop sign"),
    ]  # fmt: skip
    assert samples[2]["mp4"] == (folder / "c.mp4").read_bytes()


def test_parquet_holds_the_mp4s_and_is_a_video_column_to_hugging_face(folder: Path, tmp_path: Path, datasets: Any):
    place = export("parquet", folder, tmp_path / "clips.parquet")
    found = load(datasets, "parquet", data_files=str(place), cache=tmp_path / "cache")
    assert [row["video"]["bytes"] for row in found] == [(folder / f"{name}.mp4").read_bytes() for name in NAMES]
    assert [row["prompt"] for row in found][1:] == ["a stop sign", 'the "other", 圆\u00a0']


def test_parquet_without_pyarrow_says_what_to_install(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"export parquet: pyarrow is not installed; pip install 'pyarrow>=17'"):
        export("parquet", folder, tmp_path / "clips.parquet")


def test_vbench_numbers_the_clips_of_a_prompt_by_seed(folder: Path, tmp_path: Path):
    place = export("vbench", folder, tmp_path / "vbench")
    assert files(place) == ["a stop sign-0.mp4", "a stop sign-1.mp4", 'the "other", 圆\u00a0-0.mp4']
    assert (place / "a stop sign-0.mp4").samefile(folder / "b.1.mp4"), "seed 1 comes before seed 2"


def test_vbench_counts_a_clip_once_whose_prompt_is_in_the_list_twice(folder: Path, tmp_path: Path):
    publish(tmp_path / "out", "1-seed0", seed=0, prompt="a bund")
    publish(tmp_path / "out", "1-seed1", seed=1, prompt="a bund")
    publish(tmp_path / "out", "2-seed0", seed=0, prompt="a bund")
    change_sidecar(tmp_path / "out", "2-seed0", render_key="key of 1-seed0")
    clips = finished_clips(tmp_path / "out")[0]
    note = FORMATS["vbench"].writer()(clips, tmp_path / "vbench")
    assert files(tmp_path / "vbench") == ["a bund-0.mp4", "a bund-1.mp4"]
    assert (tmp_path / "vbench" / "a bund-1.mp4").samefile(tmp_path / "out" / "1-seed1.mp4")
    assert note == "1 clip with the prompt and all settings of another left out"


@pytest.mark.parametrize(
    ("prompt", "why"),
    [("left/right", "has a /"), (".hidden", "begins with a dot"), ("圆" * 90, r"too long .*279 bytes; at most 255")],
)
def test_a_prompt_that_is_no_file_name_is_an_error_of_vbench(tmp_path: Path, prompt: str, why: str):
    publish(tmp_path / "out", "a", prompt=prompt)
    with pytest.raises(ValueError, match=f"a: its prompt .*{why}"):
        export("vbench", tmp_path / "out", tmp_path / "vbench")


def test_csv_has_the_path_of_each_clip(folder: Path, tmp_path: Path):
    place = export("csv", folder, tmp_path / "clips.csv")
    with open(place, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [str(folder / f"{name}.mp4") for name in NAMES]
    assert rows[2]["prompt"] == 'the "other", 圆\u00a0' and rows[0]["num_frames"] == "5"


def test_frames_are_those_that_the_mp4_decodes_to(folder: Path, tmp_path: Path):
    place = export("frames", folder, tmp_path / "frames")
    assert sorted(path.name for path in (place / "a").iterdir()) == [
        f"{number:05d}.png" for number in range(NUM_FRAMES)
    ]
    decoded, _, _ = read_video(folder / "a.mp4")
    assert np.array_equal(np.asarray(Image.open(place / "a" / "00003.png")), decoded[3])
    assert len(files(place)) == 3 * NUM_FRAMES


@pytest.mark.parametrize("ending", FORMATS["sheet"].endings)
def test_the_sheet_shows_the_middle_frame_of_every_clip(folder: Path, tmp_path: Path, ending: str):
    sheet = np.asarray(Image.open(export("sheet", folder, tmp_path / f"sheet{ending}")).convert("L"))
    gray = np.abs(sheet.astype(int) - 128) < 12
    assert abs(int(gray.sum()) - 3 * SIZE[0] * SIZE[1]) < 600, "three gray pictures, none larger than its clip"
    assert (sheet < 80).sum() > 300, "captions"


def test_a_damaged_clip_is_named(tmp_path: Path):
    publish(tmp_path / "out", "a")
    mp4 = tmp_path / "out" / "a.mp4"
    mp4.write_bytes(bytes(mp4.stat().st_size))
    for format_, place in (("frames", "frames"), ("sheet", "sheet.png")):
        with pytest.raises(ValueError, match="a: the mp4 cannot be read.*`ltx-dist verify`"):
            export(format_, tmp_path / "out", tmp_path / place)


def test_the_help_names_every_format():
    from ltx_dist.commands.export import FormatName

    help_text = FormatName.__metadata__[0].help  # type: ignore[attr-defined]
    assert re.findall(r"(?:^|\. )(\w+): ", help_text) == list(FORMATS)


def test_a_foreign_sidecar_ends_no_export(tmp_path: Path):
    publish(tmp_path / "out", "a", prompt="a bund")
    request = json.loads((tmp_path / "out" / "a.json").read_text())["request"]
    change_sidecar(tmp_path / "out", "a", render_key=[], request=request | {"num_frames": None})
    assert files(export("vbench", tmp_path / "out", tmp_path / "vbench")) == ["a bund-0.mp4"]
    assert export("sheet", tmp_path / "out", tmp_path / "sheet.png").exists()
