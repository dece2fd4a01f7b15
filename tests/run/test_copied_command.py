"""The command on the page makes its clip again, bit for bit, wherever it is run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from typer.testing import CliRunner

import ltx_dist
from ltx_dist.cli import app
from ltx_dist.report.copied_command import copied_command

ROW = {
    "prompt": "it's a \"red\" circle \\n", "name": "one", "seed": 11, "height": 64, "width": 96, "num_frames": 17,
    "num_inference_steps": 2, "guidance_scale": 3.0, "negative_prompt": "blurry",
}  # fmt: skip


@pytest.mark.fault(29)
@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["output.crf=30", "output.preset=ultrafast", "model.precision=bfloat16"],
        ["model.precision=bfloat16", "model.vae_precision=float32", "model.transformer_storage=float8"],
        ["decode.tile_frames=16", "decode.tile_size=off"],
    ],
    ids=["defaults", "output and precision", "storage", "tiles"],
)
def test_the_copied_command_makes_the_same_clip(
    tmp_path: Path, settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.save_checkpoint(tmp_path / "the model", "0.9.5")
    (tmp_path / "p.jsonl").write_text(json.dumps(ROW))
    given = ["model.checkpoint=the model", "placement.device=cpu", "placement.threads=1", "cache.embeddings=null"]
    options = [option for setting in [*given, *settings] for option in ("--set", setting)]
    done = CliRunner().invoke(app, ["render", "p.jsonl", "-o", "first", "--executor", "local", *options])
    assert done.exit_code == 0, done.output
    sidecar = json.loads((tmp_path / "first" / "one.json").read_text())
    command = copied_command(sidecar["request"], sidecar["settings"])

    elsewhere, programs = tmp_path / "elsewhere", tmp_path / "bin"
    elsewhere.mkdir()
    programs.mkdir()
    (programs / "ltx-dist").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ltx_dist.cli "$@"\n')
    (programs / "ltx-dist").chmod(0o755)
    environment = os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(Path(ltx_dist.__file__).parents[1])
    }  # fmt: skip
    again = subprocess.run(["sh", "-c", command], cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr + again.stdout
    first, second = (
        json.loads((folder / "one.json").read_text()) for folder in (tmp_path / "first", elsewhere / "again")
    )
    for name in ("request", "render_key", "latents_sha256", "frames_sha256", "mp4_sha256"):
        assert first[name] == second[name], name
