"""Batches as jobs on three raylets with a fake GPU each, which require a token: submit, follow, stop, resume."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import PIL.Image
import pytest
import tiny
from raylets import raylets

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ONE = ("--set", "placement.devices=1")

NUM_CLIPS = 16
"""Each takes a few seconds: long enough that the batch is still running after three commands."""

TOKEN = "9b2f6c1d4e8a4f0fb1c3d5e7a9081726"
SMALL = [
    "defaults.height=64", "defaults.width=64", "defaults.num_frames=9", "defaults.num_inference_steps=2",
    "placement.threads=1", "placement.device=cpu", "placement.layout=replicated", "placement.devices=3",
]  # fmt: skip


@dataclass
class Cluster:
    """A job server, its head, and how to talk to them. Commands run in processes of their own, like a user's."""

    address: str
    head: str
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, *arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
        address = [] if "--address" in arguments else ["--address", self.address]
        command = [sys.executable, "-m", "ltx_dist.cli", *map(str, arguments), *address]
        return subprocess.Popen(
            command,
            env=os.environ | self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str | Path, **environment: str) -> tuple[int, str, str]:
        process = self.start(*arguments, **environment)
        stdout, stderr = process.communicate(timeout=240)
        return process.returncode, stdout, stderr

    def nodes_that_rendered(self) -> set[str]:
        """Nodes that have or had a worker, according to Ray, which also lists dead actors."""
        url = f"{self.address}/api/v0/actors?detail=true"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
        actors = json.load(urllib.request.urlopen(request, timeout=60))["data"]["result"]["result"]
        return {actor["node_id"] for actor in actors if actor["class_name"] == "StageWorker" and actor["node_id"]}


def submission(prompts: Path, out: Path, checkpoint: Path, *more: str) -> list[str | Path]:
    settings = [part for setting in [*SMALL, f"model.checkpoint={checkpoint}"] for part in ("--set", setting)]
    return ["submit", prompts, "-o", out, *settings, *more]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    token = tmp_path_factory.mktemp("home") / "token"
    token.write_text(TOKEN)
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    with raylets(num_nodes=3, gpus_each=1, environment=environment) as addresses:
        # `submit` must find out that the server requires a token.
        yield Cluster(*addresses, {"RAY_AUTH_TOKEN_PATH": str(token), "RAY_AUTH_MODE": "disabled"})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", "0.9.5")


def write_prompts(path: Path, num_clips: int, **settings: object) -> Path:
    rows = [{"prompt": f"clip {n}", "name": f"c{n:03d}", **settings} for n in range(num_clips)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def record(out: Path) -> dict[str, object]:
    return json.loads((out / "run.json").read_text())


def read_until(process: subprocess.Popen[str], pattern: str) -> str:
    """What the process prints, up to the first line that contains the pattern."""
    assert process.stdout is not None
    said = ""
    while line := process.stdout.readline():
        said += line
        if re.search(pattern, line):
            return said
    raise AssertionError(f"it ended without {pattern}:\n{said}")


def test_a_batch_is_followed_left_stopped_and_resumed(cluster: Cluster, tmp_path: Path, checkpoint: Path):
    out, prompts = tmp_path / "out", write_prompts(tmp_path / "p.jsonl", NUM_CLIPS, num_inference_steps=1000)
    command = submission(prompts, out, checkpoint)

    first = cluster.start(*command)
    heard = read_until(first, r"c0\d\d")
    first.send_signal(signal.SIGINT)
    stdout, stderr = first.communicate(timeout=240)
    assert first.returncode == 75 and "the job keeps running" in stdout and "Traceback" not in stderr, stderr
    assert f"{NUM_CLIPS} clips submitted" in heard and "3 workers as Ray actors" in heard
    job_id = heard.split(":")[0]
    assert job_id.startswith("ltx-") and job_id.endswith("-1")
    code, stdout, _ = cluster.run("status", job_id)
    assert code == 0 and f"{job_id}  RUNNING" in stdout

    again = cluster.start(*command)
    assert "already running" in read_until(again, "following it")
    code, stdout, stderr = cluster.run("stop", job_id)
    assert code == 0 and f"{job_id}  STOPPED  exit code 75" in stdout, stderr
    stdout, stderr = again.communicate(timeout=240)
    assert again.returncode == 75 and "STOPPED  exit code 75" in stdout, stdout + stderr
    stopped = record(out)
    assert stopped["exit_code"] == 75 and stopped["done"] + stopped["failed"] + stopped["remaining"] == NUM_CLIPS  # type: ignore
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("*.mp4")}
    assert 1 <= len(kept) < NUM_CLIPS

    # Two more clips than there are: further ones would prove nothing more.
    num_clips = min(1 + max(int(Path(name).stem[1:]) for name in kept) + 2, NUM_CLIPS)
    write_prompts(prompts, num_clips, num_inference_steps=1000)
    code, stdout, stderr = cluster.run(*command)
    assert code == 0, stdout + stderr
    assert f": {num_clips} clips submitted" in stdout and f"{len(kept)} already up to date" in stdout
    assert "SUCCEEDED  exit code 0" in stdout.splitlines()[-1]
    now = {path.name: path.stat().st_mtime_ns for path in out.glob("*.mp4")}
    assert len(now) == num_clips and kept.items() <= now.items() and record(out)["exit_code"] == 0
    assert len(cluster.nodes_that_rendered()) >= 2, "Ray spreads what asks for no GPU as it likes"


def test_clips_that_fail_come_back_as_exit_code_3(cluster: Cluster, tmp_path: Path, checkpoint: Path):
    broken, out = tmp_path / "broken", tmp_path / "out"
    tiny.save_overflowing(checkpoint, broken)
    code, stdout, stderr = cluster.run(*submission(write_prompts(tmp_path / "p.jsonl", 2), out, broken, *ONE))
    assert code == 3 and "FAILED  exit code 3" in stdout, stdout + stderr
    assert record(out)["exit_code"] == 3


def test_what_only_the_cluster_can_tell_comes_back_as_exit_code_2(cluster: Cluster, tmp_path: Path):
    command = submission(write_prompts(tmp_path / "p.jsonl", 1), tmp_path / "out", Path("/elsewhere/ltx-video"), *ONE)
    code, stdout, stderr = cluster.run(*command)
    assert code == 2 and "FAILED  exit code 2" in stdout, stdout + stderr
    assert "checked when the job starts" in stdout and "/elsewhere/ltx-video: no such folder" in stdout
    (first,) = re.findall(r"^(ltx-\w+-)1: 1 clip submitted", stdout, re.MULTILINE)
    _, stdout, _ = cluster.run(*command)
    assert f"{first}2: 1 clip submitted" in stdout, "the same batch again is a job of its own"


def test_nothing_is_sent_of_a_batch_that_is_wrong(cluster: Cluster, tmp_path: Path, checkpoint: Path):
    code, before, stderr = cluster.run("status")
    assert code == 0, stderr
    wrong = tmp_path / "p.jsonl"
    wrong.write_text('{"prompt": "a", "height": 130}\n{"prompt": "b", "colour": "red"}\n')
    code, _, stderr = cluster.run(*submission(wrong, tmp_path / "out", checkpoint))
    assert code == 2 and "p.jsonl:1: height" in stderr and "p.jsonl:2: colour" in stderr
    code, _, stderr = cluster.run(*submission(write_prompts(wrong, 1), Path("out"), checkpoint))
    assert code == 2 and "--output: out is relative" in stderr
    assert cluster.run("status")[1] == before


def test_a_wrong_token_is_one_clear_line(cluster: Cluster, tmp_path: Path, checkpoint: Path):
    command = submission(write_prompts(tmp_path / "p.jsonl", 1), tmp_path / "out", checkpoint)
    wrong = tmp_path / "wrong"
    wrong.write_text("0" * 32)
    code, stdout, stderr = cluster.run(*command, RAY_AUTH_TOKEN_PATH=str(wrong))
    assert (code, stdout, len(stderr.splitlines())) == (2, "", 1), stderr
    assert f"rejects the token from {wrong}" in stderr
    join = ("render", write_prompts(tmp_path / "q.jsonl", 1), "-o", tmp_path / "out", "--address", cluster.head)
    code, stdout, stderr = cluster.run(*join, RAY_AUTH_TOKEN_PATH=str(wrong))
    assert (code, stdout, len(stderr.splitlines())) == (2, "", 1), stderr
    assert f"{cluster.head} rejects the token from {wrong}" in stderr
    none = {"RAY_AUTH_TOKEN_PATH": "", "HOME": str(tmp_path)}
    code, stdout, stderr = cluster.run(*command, **none)
    assert (code, stdout, len(stderr.splitlines())) == (2, "", 1), stderr
    assert "requires an auth token, and none was found; put it into ~/.ray/auth_token" in stderr


def test_clips_with_sound_are_the_same_with_text_encoder_transformer_and_vae_on_a_node_each(
    cluster: Cluster, tmp_path: Path
):
    folder = Path(__file__).parents[1] / "models" / "ltx2"
    tool = folder.parents[2] / "tools" / "make_ltx2_checkpoint.py"
    subprocess.run([sys.executable, tool, "2.5", tmp_path / "ltx25"], check=True, stdout=subprocess.DEVNULL)
    PIL.Image.linear_gradient("L").convert("RGB").resize((96, 64)).save(tmp_path / "picture.png")
    command = [sys.executable, folder / "nodes_ltx2.py", tmp_path / "ltx25", tmp_path / "picture.png", cluster.head]
    environment = os.environ | cluster.environment | {"RAY_AUTH_MODE": "token"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stdout) == (0, "5 clips, 3 nodes\n"), done.stderr


def test_a_job_that_is_not_there_is_told_of(cluster: Cluster):
    for command in ("status", "stop"):
        code, _, stderr = cluster.run(command, "ltx-nothing-1")
        assert code == 2 and stderr.startswith("ltx-dist: no job ltx-nothing-1 on this cluster"), stderr
