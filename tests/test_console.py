"""Consoles of every encoding: characters that they lack are written as `?`, and end nothing."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ltx_dist.commands.console import lasting_console
from ltx_dist.commands.shared import bad_input

ENCODINGS = ["ascii", "iso8859-1", "cp1252", "cp932", "euc_jp", "gbk", "utf-8"]
PROMPTS = "ein Bär tanzt – 一只猫 🐈\n" + "a very long prompt whose name is cut off where the console is narrow\n"


def ltx_dist(*arguments: str | Path, encoding: str, columns: int = 60) -> subprocess.CompletedProcess[bytes]:
    """Run the command as on a console with this encoding: without Python's UTF-8 mode and C locale coercion."""
    settings = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "COLUMNS": str(columns)}
    command = [sys.executable, "-m", "ltx_dist.cli", *map(str, arguments)]
    return subprocess.run(command, env=os.environ | settings, capture_output=True, check=False, timeout=300)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "p.txt"
    path.write_text(PROMPTS, "utf-8")
    return path


@pytest.mark.fault(13)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_plan_is_printed_on_a_console_of_any_encoding(prompts: Path, encoding: str):
    done = ltx_dist("plan", prompts, "--set", "placement.device=cpu", encoding=encoding)
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode(encoding, "replace")
    assert b"cpu:0" in done.stdout


def test_mistakes_are_reported_whatever_characters_they_quote(tmp_path: Path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "x", "größe": 3}\n', "utf-8")
    done = ltx_dist("plan", path, encoding="ascii")
    assert done.returncode == 2 and b"p.jsonl:1: gr??e: unknown" in done.stderr, done.stderr


@pytest.mark.fault(13)
@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "iso8859-1", "euc_jp"])
def test_a_batch_is_rendered_on_a_console_of_any_encoding(prompts: Path, tmp_path: Path, encoding: str):
    small = ["placement.device=cpu", "placement.threads=1", "defaults.height=32", "defaults.width=32",
             "defaults.num_frames=9", "defaults.num_inference_steps=1"]  # fmt: skip
    settings = [word for setting in small for word in ("--set", setting)]
    done = ltx_dist("render", prompts, "-o", tmp_path / "out", *settings, encoding=encoding, columns=40)
    assert done.returncode == 0, done.stderr.decode(encoding, "replace")
    assert len(list((tmp_path / "out").glob("*.mp4"))) == 2


def test_a_stream_of_the_callers_own_gets_a_question_mark(monkeypatch: pytest.MonkeyPatch):
    strict = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict", write_through=True)
    monkeypatch.setattr(sys, "stdout", strict)
    lasting_console().print("2 clips · done")
    assert strict.buffer.getvalue() == b"2 clips ? done\n"  # type: ignore[attr-defined]


def test_what_cannot_be_written_is_never_called_bad_input():
    with pytest.raises(UnicodeEncodeError), bad_input():
        "·".encode("ascii")
