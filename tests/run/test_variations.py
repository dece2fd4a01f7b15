"""A file of rows that vary: what is rendered when it changes, what sidecars say, and how a clip is repeated."""

from __future__ import annotations

import io
import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ltx_dist.cli import app
from ltx_dist.inputs.config_file import load_config
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.report.copied_command import copied_command
from ltx_dist.run.batch import open_batch

SETTINGS = [
    "defaults.height=64", "defaults.width=64", "defaults.num_frames=9", "defaults.num_inference_steps=1",
    "placement.threads=1", "placement.device=cpu", "cache.embeddings=null", "recovery.keep_latents=true",
]  # fmt: skip
ROW: dict[str, Any] = {
    "caption": "a {red|red} circle", "name": "circle", "vary": {"seed": [3]}, "meta": {"id": 7}, "tag": "x"
}  # fmt: skip


def render(row: dict[str, Any], *options: str) -> Result:
    Path("p.jsonl").write_text(json.dumps(row) + "\n")
    settings = [argument for setting in SETTINGS for argument in ("--set", setting)]
    reading = ["--expand", "all", "--column", "caption=prompt", "--keep-columns", "tag", *options]
    return CliRunner().invoke(app, ["render", "p.jsonl", "-o", "out", "--executor", "local", *settings, *reading])


def sidecars(folder: str = "out") -> dict[str, Any]:
    found = {path.stem: json.loads(path.read_text()) for path in Path(folder).glob("circle-*.json")}
    assert found
    return found


@pytest.fixture
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_changed_file_renders_what_is_new_and_updates_the_other_sidecars(
    in_tmp_path: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = render(ROW)
    assert first.exit_code == 0 and "1 clip: 1 done" in first.output, first.output
    before = sidecars()["circle-red-seed3"]
    assert before["meta"] == {"id": 7, "tag": "x"}
    assert before["variation"] == {"of": "circle", "values": {"{red|red}": "red", "seed": 3}}

    second = render(ROW | {"vary": {"seed": [2, 3]}, "meta": {"id": 8}})
    assert second.exit_code == 0, second.output
    after = sidecars()
    assert set(after) == {"circle-red-seed2", "circle-red-seed3"}
    assert after["circle-red-seed3"] == before | {"meta": {"id": 8, "tag": "x"}}

    decoded = CliRunner().invoke(app, ["decode", "out", "--set", "output.crf=30"])
    assert decoded.exit_code == 0, decoded.output
    again = sidecars()["circle-red-seed3"]
    assert again["mp4_sha256"] != before["mp4_sha256"]
    assert (again["meta"], again["variation"]) == ({"id": 8, "tag": "x"}, before["variation"])

    copied = shlex.split(copied_command(again["request"], again["settings"]))
    printf, _, row, pipe, program, command, source, *_ = copied
    assert (printf, pipe, program, command, source) == ("printf", "|", "ltx-dist", "render", "-")
    (request,) = _read_from_stdin(row, monkeypatch)
    assert json.loads(json.dumps(asdict(request))) == before["request"]


def test_a_sidecar_older_than_its_mp4_is_written_again_though_the_row_changed(in_tmp_path: None) -> None:
    sidecar = Path("out/circle-red-seed3.json")
    render(ROW)
    older = sidecar.read_bytes()
    assert render(ROW, "--set", "output.crf=30").exit_code == 0
    newer = json.loads(sidecar.read_bytes())
    assert newer["render_key"] != json.loads(older)["render_key"]
    sidecar.write_bytes(older)  # as if the run had died between the two files

    kept = render(ROW | {"meta": {"id": 8}}, "--set", "output.crf=30")
    assert kept.exit_code == 0 and "nothing to do" in kept.output, kept.output
    after = json.loads(sidecar.read_bytes())
    assert [after[key] for key in ("render_key", "mp4_sha256")] == [newer[key] for key in ("render_key", "mp4_sha256")]
    assert after["meta"] == {"id": 8, "tag": "x"}


def test_a_run_warns_of_a_table_that_it_may_not_write_whether_it_renders_or_not(in_tmp_path: None) -> None:
    table = Path("out/metadata.jsonl")
    table.parent.mkdir()
    table.write_text("theirs\n")
    for row, is_kept in ((ROW, False), (ROW | {"meta": {"id": 8}}, True)):
        result = render(row)
        said = " ".join(result.output.split())
        assert result.exit_code == 0 and ("nothing to do" in said) == is_kept, said
        warning = "warning: out/metadata.jsonl: not written by ltx-dist, so it is left as it is"
        assert said.count(warning) == 1, said
    assert table.read_text() == "theirs\n" and sidecars()["circle-red-seed3"]["meta"] == {"id": 8, "tag": "x"}


def _read_from_stdin(text: str, monkeypatch: pytest.MonkeyPatch) -> list[RenderRequest]:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    return list(open_batch("-", load_config(None)).requests)
