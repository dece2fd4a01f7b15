"""Before a batch begins, it is checked whether its files will fit on their disks."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import make_request
from typer.testing import CliRunner

from ltx_dist.cli import app
from ltx_dist.pipeline.storage import Mp4Settings
from ltx_dist.store.disk_space import clip_bytes, latents_bytes, shortage, spool_peak

CLIP = replace(make_request("a"), width=704, height=480, num_frames=121)


def test_what_a_clip_takes():
    mp4 = clip_bytes(CLIP, Mp4Settings(crf=17))
    assert mp4 == pytest.approx(5.1e6, rel=0.01) and clip_bytes(CLIP, Mp4Settings(crf=23)) == mp4 / 2
    assert clip_bytes(CLIP, Mp4Settings(crf=17, also=("av1", "prores"))) == pytest.approx(5.4 * mp4)
    assert latents_bytes(CLIP, 128, 32, 8) == 4 * 128 * 16 * 15 * 22


def test_latents_lie_there_until_their_clip_is_published_or_for_good():
    sizes = [1, 5, 3, 4]
    assert spool_peak(sizes, 2, keeps_all=False, limit=100) == 9
    assert spool_peak(sizes, 2, keeps_all=True, limit=100) == 13
    assert spool_peak(sizes, 2, keeps_all=True, limit=10) == 10


def test_only_what_does_not_fit_is_told(tmp_path: Path):
    system = os.statvfs(tmp_path)
    free = system.f_bavail * system.f_frsize
    assert shortage(tmp_path, free / 4, free / 4) is None
    assert "may not fit: an estimated" in (shortage(tmp_path, free, free) or "")


def test_a_run_warns_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    system = os.statvfs(tmp_path)
    full = os.statvfs_result([system.f_bsize, system.f_frsize, system.f_blocks, 1, 1, *tuple(system)[5:]])
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    (tmp_path / "prompts.txt").write_text("a red circle\n")
    settings = ["placement.threads=1", "defaults.num_inference_steps=1", "placement.device=cpu"]
    options = [word for setting in settings for word in ("--set", setting)]
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["render", str(tmp_path / "prompts.txt"), "-o", str(out), *options])
    assert result.exit_code == 0, result.output
    told = result.output.replace("\n", " ")
    assert "warning: the output may not fit" in told and (out / "001-a-red-circle.mp4").exists()
