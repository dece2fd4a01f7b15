"""Which files of a folder are its clips."""

from __future__ import annotations

from pathlib import Path

from ltx_dist.store.clip_names import clip_names


def put(folder: Path, *places: str) -> None:
    for place in places:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(b"")


def test_clips_are_what_has_an_mp4_or_a_sidecar_here_and_in_folders(tmp_path: Path):
    put(tmp_path, "d.mp4", "d.webp", "coast/10.json", "coast/2.json", "coast/index.json", "run.json", "notes.txt")
    assert clip_names(tmp_path) == ["coast/2", "coast/10", "d"]


def test_the_output_of_another_run_in_a_folder_is_not_entered(tmp_path: Path):
    put(tmp_path, "a.mp4", "inner/.ltx-dist/x.mp4", "inner/b.mp4", "old/run.json", "old/c.mp4", ".hidden/d.mp4")
    (tmp_path / "link").symlink_to(tmp_path / "old")
    assert clip_names(tmp_path) == ["a"]


def test_of_no_folder_there_are_none(tmp_path: Path):
    assert clip_names(tmp_path / "none") == []
