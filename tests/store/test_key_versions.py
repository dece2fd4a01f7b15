"""Clips of earlier versions are counted, by sidecar or by seal, and nothing else counts as one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ltx_dist.cli import app
from ltx_dist.media.seal import sealed
from ltx_dist.pipeline.keys import KEY_VERSION
from ltx_dist.store.key_versions import outdated, why_again

OLD = {"status": "done", "render_key": "12" * 32}
NOW = OLD | {"key_version": KEY_VERSION}


def write(folder: Path, name: str, sidecar: object = None, facts: dict[str, str] | None = None) -> None:
    (folder / f"{name}.mp4").write_bytes(sealed(b"mp4", facts) if facts is not None else b"mp4")
    if sidecar is not None:
        (folder / f"{name}.json").write_text(json.dumps(sidecar))


def test_clips_that_tell_an_earlier_version_or_none_are_counted(tmp_path: Path):
    write(tmp_path, "no version", OLD)
    write(tmp_path, "earlier", OLD | {"key_version": KEY_VERSION - 1})
    write(tmp_path, "now", NOW)
    write(tmp_path, "seal only", facts={"render_key": "12" * 32})
    write(tmp_path, "seal of now", facts={"render_key": "12" * 32, "key_version": str(KEY_VERSION)})
    names = [path.stem for path in tmp_path.glob("*.mp4")]
    assert outdated(tmp_path, names) == 3
    assert outdated(tmp_path, ["now", "seal of now", "not there"]) == 0
    assert why_again(3).startswith("3 clips made by an earlier version") and str(KEY_VERSION) in why_again(3)


@pytest.mark.parametrize("sidecar", [[], "x", {"status": "failed", "error": "e"}, {"key_version": "many"}, {}])
def test_what_is_no_finished_clip_of_ours_is_none_of_them(tmp_path: Path, sidecar: object):
    write(tmp_path, "a", sidecar)
    assert outdated(tmp_path, ["a"]) == 0


def test_a_sidecar_without_its_clip_and_a_pipe_are_none_of_them(tmp_path: Path):
    (tmp_path / "a.json").write_text(json.dumps(OLD))
    os.mkfifo(tmp_path / "b.mp4")
    os.mkfifo(tmp_path / "c.json")
    assert outdated(tmp_path, ["a", "b", "c"]) == 0


def test_plan_counts_them_where_the_clips_are_to_go(tmp_path: Path):
    (tmp_path / "prompts.txt").write_text("a\nb\n")
    write(tmp_path, "001-a", OLD)
    for more, expected in (([], False), (["-o", str(tmp_path)], True)):
        result = CliRunner().invoke(app, ["plan", str(tmp_path / "prompts.txt"), *more])
        assert result.exit_code == 0, result.output
        assert ("1 clip made by an earlier version of ltx_dist" in result.output) == expected


def test_a_plan_looks_into_a_folder_in_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "clips").mkdir()
    write(tmp_path / "clips", "001-a", OLD)
    result = CliRunner().invoke(app, ["plan", "--prompt", "a", "-o", "~/clips"])
    assert result.exit_code == 0 and "1 clip made by an earlier version of ltx_dist" in result.output
