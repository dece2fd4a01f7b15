"""Standard streams that are closed, full or have lost their reader, and what is printed about a hostile folder."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ltx_dist.checkpoints.checkpoint import DEMO_MODEL
from ltx_dist.messages import clean, clean_lines

HOSTILE = "a\x1b]0;owned\x07\x1b[2J\x9b1m\u202e"


def shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    script = f'ltx() {{ "{sys.executable}" -m ltx_dist.cli "$@"; }}\n{line}\n'
    settings = {key: value for key, value in os.environ.items() if key != "COLUMNS"} | environment
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, env=settings, capture_output=True, text=True, timeout=300
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    row = {
        "prompt": "a red circle",
        "name": "a-name-that-is-longer-than-most-names-of-clips-are",
        "num_inference_steps": 1,
    }
    (tmp_path / "p.jsonl").write_text(json.dumps(row) + "\n")
    return tmp_path


@pytest.mark.fault(18)
@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("ltx render p.jsonl -o out --executor local >&-", 0),
        ("ltx render p.jsonl -o out --executor local >/dev/full", 0),
        ("ltx render p.jsonl -o out --keep-latents && ltx decode out --set output.crf=30 >/dev/full", 0),
        ("ltx plan p.jsonl >&-", 0),
        ("ltx plan - <&-", 2),
        ("ltx plan p.jsonl >/dev/full", 74),
        ("ltx plan p.jsonl | head -1; exit ${PIPESTATUS[0]}", 0),
        ("ltx render p.jsonl -o ''", 2),
        ("ltx render p.jsonl -o=out", 2),
        ("ltx render p.jsonl -o p.jsonl", 2),
        ("ltx verify ''", 2),
    ],
)
def test_each_ends_with_the_right_code_and_no_traceback(folder: Path, line: str, code: int) -> None:
    ended = shell(line, folder)
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr and "Exception ignored" not in ended.stderr
    assert sorted(path.name for path in folder.iterdir()) == (["out", "p.jsonl"] if "-o out" in line else ["p.jsonl"])
    if line.startswith("ltx render") and code == 0:
        assert json.loads((folder / "out" / "run.json").read_text())["done"] == 1
    if code == 74:
        assert "cannot write standard output: No space left on device" in ended.stderr
    if code == 2 and "-o" in line:
        assert "--output: " in ended.stderr


@pytest.mark.fault(18)
def test_a_tilde_is_the_users_home(folder: Path) -> None:
    ended = shell(
        "ltx render p.jsonl --output='~/out' --executor local", folder, HOME=str(folder), LTX_DIST_CACHE="~/c"
    )
    assert ended.returncode == 0, ended.stderr
    assert (folder / "out" / "run.json").exists() and (folder / "c").is_dir() and not (folder / "~").exists()


def test_a_plan_in_a_pipe_is_not_wrapped(folder: Path) -> None:
    wide, narrow = shell("ltx plan p.jsonl | cat", folder), shell("COLUMNS=40 ltx plan p.jsonl | cat", folder)
    header = next(line for line in wide.stdout.splitlines() if line.startswith("worker "))
    assert header.split()[-5:] == ["peak", "capacity", "host", "memory", "threads"], "one line"
    assert len(narrow.stdout.splitlines()) > len(wide.stdout.splitlines())


@pytest.mark.fault(17)
@pytest.mark.parametrize("log", ["/dev/full", "fifo"])
def test_a_batch_goes_on_without_an_event_log_that_cannot_be_written(folder: Path, log: str) -> None:
    line = f"ltx render p.jsonl -o out --executor local --json-events {log}"
    if log == "fifo":
        line = f"mkfifo fifo; head -c 1 fifo >first & {line}"
    ended = shell(line, folder)
    assert ended.returncode == 0 and "Traceback" not in ended.stderr, ended.stdout + ended.stderr
    assert "--json-events" in ended.stdout.replace("\n", "") and "the batch continues without it" in ended.stdout
    record = json.loads((folder / "out" / "run.json").read_text())
    assert record["done"] == 1 and any("--json-events" in warning for warning in record["warnings"])


@pytest.mark.fault(10)
def test_nothing_in_a_folder_reaches_the_terminal_as_an_escape(folder: Path) -> None:
    assert shell("ltx render p.jsonl -o out --executor local", folder).returncode == 0
    out = folder / "out"
    (out / f"{HOSTILE}.mp4").write_bytes(b"x")
    (out / "failed.json").write_text(json.dumps({"status": "failed", "error": HOSTILE}))
    record = json.loads((out / "run.json").read_text())
    record["unfinished"] = [f"left {HOSTILE}"]
    worker = record["workers"][0]["worker_id"]
    hostile = json.dumps(record).replace(json.dumps(worker)[1:-1], json.dumps(HOSTILE)[1:-1])
    (out / "run.json").write_text(hostile)
    for command, code in (("verify", 3), ("timeline", 0), ("report", 0)):
        ended = shell(f"ltx {command} out", folder)
        assert ended.returncode == code, ended.stderr
        assert clean_lines(ended.stdout) == ended.stdout and clean_lines(ended.stderr) == ended.stderr, command
    (out / "run.json").write_text("{")
    ended = shell("mv out $'out\\e[2J'; ltx timeline $'out\\e[2J'", folder)
    assert ended.returncode == 2 and clean_lines(ended.stderr) == ended.stderr
    assert clean(HOSTILE).isprintable()


@pytest.mark.fault(10)
def test_nothing_of_the_inputs_reaches_the_terminal_as_an_escape(folder: Path) -> None:
    """Names of models, columns, tensors, keys of configs and profiles, both right and wrong ones."""
    model = folder / f"model {HOSTILE}"
    shutil.copytree(DEMO_MODEL, model)
    (folder / "p.csv").write_text(f"prompt,{HOSTILE}\na,b\n")
    (folder / "kept.jsonl").write_text(json.dumps({"prompt": "{a|b} c", "meta": {HOSTILE: HOSTILE}}))
    (folder / "c.yaml").write_text(json.dumps({HOSTILE: {HOSTILE: 1}}))
    save_file({f"{HOSTILE}.lora_A.weight": np.zeros((1, 1))}, folder / "lora.safetensors")
    (folder / "lora.jsonl").write_text(json.dumps({"prompt": "a", "loras": ["lora.safetensors"]}))
    named = shlex.quote(str(model))
    for line, code in (
        (f"ltx plan kept.jsonl -m {named}", 0),
        (f"ltx plan p.csv -m {named}", 2),
        (f"ltx plan p.jsonl -m {named} -c c.yaml", 2),
        ("ltx plan lora.jsonl", 2),
        (f"ltx plan p.jsonl -m {named}/vae", 2),
        (f"ltx export {shlex.quote(HOSTILE)} {named} -o e", 2),
    ):
        ended = shell(line, folder)
        assert ended.returncode == code, ended.stdout + ended.stderr
        assert clean_lines(ended.stdout) == ended.stdout and clean_lines(ended.stderr) == ended.stderr, line
        assert "owned" in ended.stdout + ended.stderr, line


@pytest.mark.fault(10)
def test_an_internal_error_is_printed_without_escapes() -> None:
    code = (
        "import logging\nimport sys\nimport ltx_dist.cli as cli\n@cli.app.command()\ndef fail():\n"
        f"    logging.getLogger('ltx_dist').warning({HOSTILE!r})\n    raise OSError({HOSTILE!r})\n"
        "sys.argv = ['ltx-dist', 'fail']\ncli.main()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 1 and ended.stderr.count("owned") >= 2, ended.stderr
    assert ended.stderr.startswith("a ") and "Traceback" in ended.stderr and "\nOSError: " in ended.stderr
    assert clean_lines(ended.stderr) == ended.stderr
