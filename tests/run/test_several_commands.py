"""A folder that several commands have filled: what each leaves of the others', and which files cover all clips."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import small_batch
import tiny
from small_batch import run
from typer.testing import Result

STEPS = ("defaults.num_inference_steps=1",)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", "0.9.5")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """One clip of a first command, two of a second."""
    folder = tmp_path_factory.mktemp("several") / "out"
    first(folder, checkpoint)
    second(folder, checkpoint)
    return folder


def first(out: Path, checkpoint: Path, row: str = '{"prompt": "one", "name": "first"}') -> Result:
    return render(out, checkpoint, "-", stdin=row)


def second(out: Path, checkpoint: Path) -> Result:
    return render(out, checkpoint, "--prompt", "two", "--prompt", "three")


def render(out: Path, checkpoint: Path, *more: str, stdin: str | None = None) -> Result:
    result = small_batch.render(out, checkpoint, *more, "--keep-latents", settings=STEPS, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result


def test_a_command_with_nothing_to_render_leaves_the_record_and_the_page(out: Path, checkpoint: Path):
    record, page = (out / "run.json").read_bytes(), (out / "index.html").read_bytes()
    assert json.loads(record)["events"] and b"How it ran" in page
    settings = (out / ".ltx-dist/config.json").read_bytes()
    assert "nothing to do" in first(out, checkpoint).output
    assert (out / ".ltx-dist/config.json").read_bytes() == settings, "of the same run as the record"
    assert (out / "run.json").read_bytes() == record and (out / "index.html").read_bytes() == page


def test_table_and_page_have_what_such_a_command_wrote_into_sidecars(out: Path, checkpoint: Path):
    record = (out / "run.json").read_bytes()
    row = '{"prompt": "one", "name": "first", "meta": {"take": "blue hour"}}'
    assert "nothing to do" in first(out, checkpoint, row).output
    rows = {row["name"]: row for row in map(json.loads, (out / "metadata.jsonl").read_text().splitlines())}
    assert len(rows) == 3 and rows["first"]["meta.take"] == "blue hour"
    page = (out / "index.html").read_text()
    assert "blue hour" in page and "How it ran" in page and (out / "run.json").read_bytes() == record


def test_a_record_without_work_or_without_an_end_is_written_again(out: Path, checkpoint: Path):
    path = out / "run.json"
    record = json.loads(path.read_text())
    for changes in ({"events": []}, {"exit_code": None}, {"exit_code": 75, "remaining": 1}):
        path.write_text(json.dumps(record | changes))
        assert "nothing to do" in second(out, checkpoint).output
        written = json.loads(path.read_text())
        assert (written["submitted"], written["skipped"], written["exit_code"], written["events"]) == (2, 2, 0, [])
    path.write_text(json.dumps(record))


def test_the_head_of_the_page_counts_the_clips_of_all(out: Path):
    assert run("report", out).exit_code == 0
    facts = (out / "index.html").read_text().partition('class="facts"')[2].partition("</p>")[0]
    assert "<span>3 clips</span>" in facts and "<span>last run: 2 clips</span>" in facts


def test_report_names_what_it_writes(out: Path):
    written = [out / name for name in ("trace.json", "index.html", "metadata.jsonl")]
    before = [path.stat().st_mtime_ns for path in written]
    assert run("report", out).output.split() == list(map(str, written))
    assert all(path.stat().st_mtime_ns > then for path, then in zip(written, before, strict=True))


def test_failed_clips_of_other_commands_are_counted(out: Path):
    path = out / "first.json"
    sidecar = path.read_bytes()
    path.write_text(json.dumps(json.loads(sidecar) | {"status": "failed", "error": "no memory"}))
    assert run("report", out).exit_code == 0
    page = (out / "index.html").read_text()
    assert "<span>2 of 3 clips</span>" in page and ">1 failed</button>" in page
    path.write_bytes(sidecar)


def test_clips_of_the_last_command_are_decoded_again_and_others_are_named(out: Path):
    """The folder has only the settings of the last command; clips of the first may have had others."""
    before = (out / "first.mp4").read_bytes()
    result = run("decode", out, "--set", "output.crf=35")
    assert result.exit_code == 0, result.output
    output = " ".join(result.output.split())
    assert "1 clip of earlier commands kept latents, too" in output and "these stay as they are: first" in output
    record = json.loads((out / "run.json").read_text())
    assert record["requests"] == ["001-two", "002-three"] and record["done"] == 2
    assert {event["stage"] for event in record["events"]} == {"decode", "encode_video"}
    assert (out / "first.mp4").read_bytes() == before
