"""What `verify` finds: every way a published file can rot, and nothing else."""

from __future__ import annotations

import json
import random
from pathlib import Path
from shutil import copy, rmtree

import numpy as np
import pytest
from builders import RECIPE, STAGES, D
from typer.testing import CliRunner

from ltx_dist.cli import app
from ltx_dist.media.mp4 import encode_video
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import Mp4Settings
from ltx_dist.pipeline.work import Assignment, Completion, RenderResult, StageReport
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.report.run_record import RunProgress, read_run_record
from ltx_dist.report.verify import verify_folder
from ltx_dist.store.publisher import Publisher

NAMES = ["a", "b", "c"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    publisher = Publisher(tmp_path, {"name": "demo"})
    frames = [np.full((32, 32, 3), 40 * index, dtype=np.uint8) for index in range(5)]
    video = encode_video(
        frames, height=32, width=32, num_frames=5, frame_rate=8.0, output=Mp4Settings(), metadata={"seed": "1"},
        facts={"render_key": "key"},
    )  # fmt: skip
    for name in NAMES:
        publisher.publish(RenderResult(request(name), "done", (), video), "key")
    return tmp_path


def request(name: str) -> RenderRequest:
    return RenderRequest(name, "p", "", 32, 32, 5, 8.0, 2, 1.0, 0.0, 1, 0.0, None, 32)


def problems(folder: Path) -> dict[str, str | None]:
    return {verdict.name: verdict.problem for verdict in verify_folder(folder)}


def test_whole_clips_pass(folder: Path):
    assert problems(folder) == dict.fromkeys(NAMES)
    result = CliRunner().invoke(app, ["verify", str(folder)])
    assert result.exit_code == 0 and "3 of 3 clips are intact" in result.output


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
        publisher = Publisher(folder, {"name": "demo"})
        assert [publisher.is_published(request(name), "key") for name in NAMES] == [True, False, True], "what is redone"


def test_a_missing_half_and_a_failed_clip_are_named_with_what_a_rerun_renders(folder: Path):
    (folder / "a.mp4").unlink()
    (folder / "b.json").unlink()
    (folder / "c.json").write_text(json.dumps({"status": "failed", "error": "RuntimeError: boom\ntrace"}))
    assert problems(folder) == {
        "a": "a.mp4 is missing",
        "b": "b.json is missing; b.mp4 is intact",
        "c": "failed: RuntimeError: boom",
    }
    result = CliRunner().invoke(app, ["verify", str(folder)])
    assert result.exit_code == 3 and "0 of 3" in result.output
    assert "rerunning the commands that asked for them would render 2 clips again: a, c\n" in result.output
    assert "rerunning the command that asked for it would rebuild 1 sidecar from its mp4\n" in result.output
    (folder / "b.mp4").write_bytes((folder / "b.mp4").read_bytes()[:-9])
    assert problems(folder)["b"] == "b.json is missing, and b.mp4 is damaged"


def test_a_sidecar_older_than_its_mp4_is_told_from_damage(folder: Path):
    sidecar = json.loads((folder / "a.json").read_text())
    (folder / "a.json").write_text(json.dumps(sidecar | {"render_key": "old", "mp4_sha256": "ab" * 32}))
    assert problems(folder)["a"] == "a.mp4 is intact, but its sidecar belongs to another file"
    assert Publisher(folder, {}).is_published(request("a"), "key") and problems(folder) == dict.fromkeys(NAMES)


WORKER = Worker("cpu:0", STAGES, "cpu", 0)


def write_run(folder: Path) -> bytes:
    run = RunProgress(Placement(RECIPE, "shared", (WORKER,), dict.fromkeys(STAGES, 1)), tuple("abcde"), {}, skipped=3)
    run.unfinished = {"d", "e"}
    run.completions = [Completion(Assignment(("a",), D, "cpu:0"), 0.0, 1.0, StageReport(1.0))]
    run.write(folder)
    return (folder / "run.json").read_bytes()


def test_clips_that_a_stopped_run_left_are_named(folder: Path):
    write_run(folder)
    assert problems(folder) == {**dict.fromkeys(NAMES), "d": "not rendered yet", "e": "not rendered yet"}
    result = CliRunner().invoke(app, ["verify", str(folder)])
    assert result.exit_code == 3 and "3 of 5" in result.output and "would render 2 clips again: d, e\n" in result.output


def test_a_damaged_run_record_stops_nothing_but_its_readers(folder: Path):
    """Cut off at every 7th byte, and with every key removed or of another type."""
    whole = write_run(folder)
    record = json.loads(whole)
    damaged = [whole[:length] for length in range(0, len(whole) - 2, 7)] + [b"\0" * len(whole), b"[]", b"[" * 10_000]
    for key in ("events", "workers", "busy_share", "makespan_seconds", "submitted"):
        damaged.append(json.dumps({name: value for name, value in record.items() if name != key}).encode())
        damaged += [json.dumps(record | {key: value}).encode() for value in (None, "x", [[1]], {"a": 1})]
    for content in damaged:
        (folder / "run.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"run\.json: (damaged|not a run record).*writes it again"):
            read_run_record(folder)
        assert problems(folder) == dict.fromkeys(NAMES)
    for command in ("timeline", "report"):
        result = CliRunner().invoke(app, [command, str(folder)])
        assert result.exit_code == 2 and "writes it again" in result.output


def test_a_folder_of_something_else_is_refused(tmp_path: Path):
    result = CliRunner().invoke(app, ["verify", str(tmp_path / "nothing")])
    assert result.exit_code == 2 and "not an output folder" in result.output


@pytest.mark.parametrize("command", ["verify", "report"])
def test_a_folder_that_no_run_wrote_is_refused_and_left_alone(tmp_path: Path, command: str) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    result = CliRunner().invoke(app, [command, str(tmp_path)])
    assert result.exit_code == 2 and "not an output folder of ltx-dist" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("with_record", [False, True])
def test_a_copy_of_clips_without_the_internal_folder_is_read(folder: Path, with_record: bool) -> None:
    """`aws s3 sync` makes such a copy of a bucket."""
    copied = folder / "copy"
    copied.mkdir()
    for path in [path for name in NAMES for path in folder.glob(f"{name}.*")]:
        copy(path, copied)
    if with_record:
        (copied / "run.json").write_bytes(write_run(folder))
    assert CliRunner().invoke(app, ["report", str(copied)]).exit_code == 0 and (copied / "index.html").exists()
    result = CliRunner().invoke(app, ["verify", str(copied)])
    assert "3 of 5" in result.output if with_record else "3 of 3 clips are intact" in result.output
    rmtree(copied / ".ltx-dist", ignore_errors=True)
    for name in NAMES:
        (copied / f"{name}.json").unlink()
    for name in ("run.json", "index.html", "metadata.jsonl", "trace.json"):
        (copied / name).unlink(missing_ok=True)
    assert CliRunner().invoke(app, ["report", str(copied)]).exit_code == 2, "mp4s without sidecars"


def test_a_file_in_place_of_an_output_is_named_as_the_argument(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red circle")
    result = CliRunner().invoke(app, ["verify", str(tmp_path / "prompts.txt")])
    assert result.exit_code == 2 and "FOLDER: " in result.output and "is a file; give a folder" in result.output
