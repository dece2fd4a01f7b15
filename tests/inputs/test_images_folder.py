"""`--images DIR`: an image belongs to the row of the same name, and whatever has no counterpart is reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from test_media import SMALL, checkpoint
from typer.testing import CliRunner

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.cli import app
from ltx_dist.inputs.config import DefaultsConfig
from ltx_dist.inputs.prompts import read_prompts
from ltx_dist.models.ltx_video.presets import PRESETS
from ltx_dist.pipeline.request import RenderRequest

__all__ = ["checkpoint"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "frames"
    folder.mkdir()
    for name in ("lamp.png", "harbour.JPG", "001-a-fox.webp"):
        PIL.Image.new("RGB", (96, 64), "red").save(folder / name)
    (folder / "lamp.txt").write_text("a caption")
    return folder


def read(images: Path, checkpoint: Checkpoint, *rows: Any, warnings: list[str] | None = None) -> list[RenderRequest]:
    path = images.parent / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return read_prompts(str(path), DefaultsConfig(**SMALL), PRESETS["generic"], checkpoint, warnings, images=images)


def test_the_image_of_a_rows_name_is_its_first_frame(images: Path, checkpoint: Checkpoint):
    warnings: list[str] = []
    rows = [{"prompt": "a fox"}, {"prompt": "p", "name": "lamp"}, {"prompt": "p", "name": "harbour"}]
    requests = read(images, checkpoint, *rows, warnings=warnings)
    places = [[one.place for one in request.conditions] for request in requests]
    assert places == [[str(images / name)] for name in ("001-a-fox.webp", "lamp.png", "harbour.JPG")]
    assert warnings == []


def test_rows_and_files_alone_are_reported(images: Path, checkpoint: Checkpoint):
    warnings: list[str] = []
    rows = [{"prompt": "p", "name": name} for name in ("lamp", "Harbour", *"fedcba")]
    requests = read(images, checkpoint, *rows, warnings=warnings)
    assert [bool(request.conditions) for request in requests] == [True, *7 * [False]]
    assert warnings == [
        f"--images: {images}: no image for Harbour, a, b, c, d and 2 more; the file's name must be the row's",
        f"--images: {images}: no row for 001-a-fox.webp, harbour.JPG; the row's name must be the file's",
    ]


def test_a_row_with_an_image_of_its_own_is_refused(images: Path, checkpoint: Checkpoint):
    with pytest.raises(ValueError, match=r":1: image: --images also has lamp.png for this row; leave one of the two"):
        read(images, checkpoint, {"prompt": "p", "name": "lamp", "image": "frames/lamp.png"})


def test_a_damaged_image_is_an_error_of_its_row(images: Path, checkpoint: Checkpoint):
    (images / "lamp.png").write_bytes((images / "lamp.png").read_bytes()[:60])
    with pytest.raises(ValueError, match=r"rows.jsonl:2: image: .*/lamp.png: damaged or truncated"):
        read(images, checkpoint, {"prompt": "p"}, {"prompt": "p", "name": "lamp"})


def test_folders_that_cannot_be_paired_are_refused(images: Path, checkpoint: Checkpoint, tmp_path: Path):
    row = {"prompt": "p"}
    with pytest.raises(ValueError, match=f"^--images: {tmp_path}/none: no such folder"):
        read(tmp_path / "none", checkpoint, row)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: no images in it; their names must end in .png"):
        read(tmp_path / "empty", checkpoint, row)
    PIL.Image.new("RGB", (8, 8)).save(images / "lamp.bmp")
    with pytest.raises(ValueError, match=r"lamp.bmp and lamp.png are for the same clip; remove one of them"):
        read(images, checkpoint, row)


def test_plan_reports_what_is_unpaired(images: Path, checkpoint: Checkpoint, tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "p", "name": "lamp"} | SMALL))
    command = ["plan", str(tmp_path / "rows.jsonl"), "--images", str(images)]
    found = CliRunner().invoke(app, [*command, "--set", f"model.checkpoint={checkpoint.path}"])
    assert found.exit_code == 0 and "no row for 001-a-fox.webp, harbour.JPG" in " ".join(found.output.split())


def test_a_folder_that_cannot_be_read_is_refused(images: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch):
    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", refuse)  # root may read every folder
    with pytest.raises(ValueError, match=f"^--images: {images}: Permission denied; make the folder readable"):
        read(images, checkpoint, {"prompt": "p"})
