"""What `verify` finds: every way a published file can rot, and nothing else."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ltx_dist.cli import app
from ltx_dist.config import OutputConfig
from ltx_dist.output.publisher import Publisher
from ltx_dist.output.verify import verify_folder
from ltx_dist.output.video import encode_video
from ltx_dist.types import RenderRequest, RenderResult

NAMES = ["a", "b", "c"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    publisher = Publisher(tmp_path, {"name": "demo"})
    frames = [np.full((32, 32, 3), 40 * index, dtype=np.uint8) for index in range(5)]
    video = encode_video(
        frames, height=32, width=32, num_frames=5, frame_rate=8.0, output=OutputConfig(), metadata={"seed": "1"}
    )
    for name in NAMES:
        request = RenderRequest(name, "p", "", 32, 32, 5, 8.0, 2, 1.0, 0.0, 1, 0.0, None, 32)
        publisher.publish(RenderResult(request, "done", (), video), "key")
    return tmp_path


def problems(folder: Path) -> dict[str, str | None]:
    return {verdict.name: verdict.problem for verdict in verify_folder(folder)}


def test_whole_clips_pass(folder: Path):
    assert problems(folder) == dict.fromkeys(NAMES)
    result = CliRunner().invoke(app, ["verify", str(folder)])
    assert result.exit_code == 0 and "3 of 3 clips are whole" in result.output


def flip(content: bytes, rng: random.Random) -> bytes:
    position = rng.randrange(len(content))
    return content[:position] + bytes([content[position] ^ (1 << rng.randrange(8))]) + content[position + 1 :]


DAMAGES = {
    "flipped": flip,
    "cut": lambda content, rng: content[: rng.randrange(len(content))],
    "zeroed": lambda content, rng: bytes(len(content)),
    "longer": lambda content, rng: content + b"x",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_is_found_and_only_there(folder: Path, damage: str):
    whole = (folder / "b.mp4").read_bytes()
    rng = random.Random(damage)
    for _ in range(25):
        (folder / "b.mp4").write_bytes(DAMAGES[damage](whole, rng))
        found = problems(folder)
        assert found["b"] is not None and found["a"] is None and found["c"] is None


def test_a_missing_half_and_a_failed_clip_are_named(folder: Path):
    (folder / "a.mp4").unlink()
    (folder / "b.json").unlink()
    (folder / "c.json").write_text(json.dumps({"status": "failed", "error": "RuntimeError: boom\ntrace"}))
    assert problems(folder) == {
        "a": "a.mp4 is missing",
        "b": "b.json is missing",
        "c": "failed: RuntimeError: boom",
    }
    result = CliRunner().invoke(app, ["verify", str(folder)])
    assert result.exit_code == 3 and "0 of 3" in result.output


def test_a_folder_of_something_else_is_refused(tmp_path: Path):
    result = CliRunner().invoke(app, ["verify", str(tmp_path / "nothing")])
    assert result.exit_code == 2 and "not an output folder" in result.output
