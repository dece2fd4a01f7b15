"""The command line as a user sees it: exit codes, the contents of the folder, reruns, stops."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
from typer.testing import CliRunner, Result

from ltx_dist.cli import app
from ltx_dist.commands import folders
from ltx_dist.media.mp4 import read_video
from ltx_dist.pipeline.timeline import overlaps

SETTINGS = [
    "defaults.height=64", "defaults.width=64", "defaults.num_frames=9", "defaults.num_inference_steps=2",
    "placement.threads=1", "placement.device=cpu",
]  # fmt: skip
SMALL = [argument for setting in SETTINGS for argument in ("--set", setting)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", "0.9.5")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    rows = [
        {"prompt": "a red circle moving left", "name": "red"},
        {"prompt": "a blue square", "num_frames": 17, "seed": 5, "width": 96},
        {"prompt": "nothing", "guidance_scale": 1.0},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def render(prompts: Path, out: Path, checkpoint: Path, *more: str) -> Result:
    return run("render", prompts, "-o", out, "--set", f"model.checkpoint={checkpoint}", *SMALL, *more)


def test_a_batch_becomes_a_folder_of_clips(prompts: Path, tmp_path: Path, checkpoint: Path):
    out = tmp_path / "out"
    result = render(prompts, out, checkpoint)
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    assert names == [
        "002-a-blue-square.json", "002-a-blue-square.mp4", "002-a-blue-square.webp",
        "003-nothing.json", "003-nothing.mp4", "003-nothing.webp",
        "index.html", "metadata.jsonl", "red.json", "red.mp4", "red.webp", "run.json", "trace.json",
    ]  # fmt: skip
    frames, frame_rate, tags = read_video(out / "002-a-blue-square.mp4")
    assert frames.shape == (17, 64, 96, 3)
    sidecar = json.loads((out / "002-a-blue-square.json").read_text())
    inside = json.loads(tags["comment"])
    assert inside["seed"] == sidecar["request"]["seed"] == 5
    assert inside["render_key"] == sidecar["render_key"]
    assert frame_rate == sidecar["request"]["frame_rate"]
    record = json.loads((out / "run.json").read_text())
    assert (record["submitted"], record["done"], record["failed"], record["remaining"]) == (3, 3, 0, 0)
    assert record["exit_code"] == 0 and len(record["events"]) == 3 * 4
    assert 0 < record["lower_bound_seconds"] <= record["makespan_seconds"]


def test_a_rerun_renders_only_what_is_missing_or_changed(prompts: Path, tmp_path: Path, checkpoint: Path):
    out = tmp_path / "out"
    render(prompts, out, checkpoint)
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.mp4")}
    again = render(prompts, out, checkpoint, "--set", "placement.residency=time_sliced")
    assert again.exit_code == 0 and "3 already up to date; nothing to do" in again.output
    assert len(json.loads((out / "run.json").read_text())["events"]) == 3 * 4, "the record of the work stays"
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("*.mp4")} == before
    (out / "red.mp4").write_bytes(b"damaged")
    prompts.write_text(prompts.read_text().replace("nothing", "something"))
    third = render(prompts, out, checkpoint)
    assert third.exit_code == 0 and "1 already up to date" in third.output
    assert "existing clips that have other settings or are damaged, to be replaced: 1" in third.output
    assert json.loads((out / "run.json").read_text())["skipped"] == 1
    assert (out / "002-a-blue-square.mp4").stat().st_mtime_ns == before["002-a-blue-square.mp4"]
    assert (out / "red.mp4").stat().st_size > 100 and (out / "003-something.mp4").exists()


def test_clips_that_fail_are_told_of_and_exit_3(prompts: Path, tmp_path: Path, checkpoint: Path):
    out = tmp_path / "out"
    result = render(prompts, out, tiny.save_overflowing(checkpoint, tmp_path / "broken"))
    assert result.exit_code == 3, result.output
    sidecar = json.loads((out / "red.json").read_text())
    assert sidecar["status"] == "failed" and "not finite" in sidecar["error"]
    record = json.loads((out / "run.json").read_text())
    assert (record["done"], record["failed"], record["exit_code"]) == (0, 3, 3)
    assert not list(out.glob("*.mp4"))


CANARY = "canary-7f3a9c"


def test_nothing_of_the_environment_gets_into_the_output(
    prompts: Path, tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    """This holds for a clip that is done, for one that failed, and for a run that failed."""
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN", "SOME_PASSWORD", "HTTPS_PROXY"):
        monkeypatch.setenv(name, CANARY)
    broken = tiny.save_overflowing(checkpoint, tmp_path / "broken")
    printed = ""
    for index, weights in enumerate((checkpoint, broken)):
        out = tmp_path / f"out-{index}"
        events = ["--json-events", str(tmp_path / f"events-{index}.jsonl")]
        result = render(prompts, out, weights, "--set", "recovery.keep_latents=true", *events)
        assert result.exit_code == (0, 3)[index], result.output
        printed += result.output
    files = [path for path in tmp_path.rglob("*") if path.is_file() and broken not in path.parents]
    kinds = {path.suffix for path in files}
    assert kinds >= {".mp4", ".json", ".html", ".jsonl", ".safetensors"} and CANARY not in printed
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []


def test_every_mistake_is_reported_at_once_before_anything_is_loaded(tmp_path: Path):
    path = tmp_path / "prompts.csv"
    path.write_text("prompt,height,num_frames,colour\na,130,25,\nb,128,24,\n")
    code = f"""
import sys
from ltx_dist.cli import main
sys.argv = ["ltx-dist", "render", {str(path)!r}, "-o", {str(tmp_path / "out")!r}]
try:
    main()
finally:
    print(*[name for name in ("torch", "ray", "diffusers") if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stdout.strip() == ""
    for mistake in ("csv:1: colour: unknown column", "csv:2: height: 130", "csv:3: num_frames: 24"):
        assert mistake in result.stderr, result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "placement.layuot=pinned"], "did you mean placement.layout?"),
        (["--set", "model.checkpoint=/nowhere"], "/nowhere"),
        (["--executor", "cloud"], "--executor"),
        (["--set", "placement.device=cuda", "--executor", "local"], "placement.device: cuda was requested"),
        (["--set", "placement.layout=pinned", "--set", "placement.devices=1"], "placement.layout: pinned needs"),
    ],
)
def test_bad_settings_exit_2_with_the_remedy(prompts: Path, tmp_path: Path, arguments: list[str], message: str):
    result = run("render", prompts, "-o", tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_a_folder_is_for_one_run_at_a_time(prompts: Path, tmp_path: Path, checkpoint: Path):
    from ltx_dist.store.lock import folder_lock

    with folder_lock(tmp_path / "out"):
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
        started = time.process_time()
        result = render(prompts, tmp_path / "out", checkpoint)
        seconds = time.process_time() - started
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
    assert result.exit_code == 2 and seconds < 2
    assert f"in use by the run with process id {os.getpid()} on {socket.gethostname()} since 20" in result.output


def test_a_file_in_place_of_the_output_folder_is_bad_input(prompts: Path, tmp_path: Path, checkpoint: Path):
    (tmp_path / "out").write_text("a file, not a folder")
    result = render(prompts, tmp_path / "out", checkpoint)
    assert result.exit_code == 2 and "out is a file; give a folder" in result.output


def test_a_folder_that_cannot_be_written_exits_74(prompts: Path, tmp_path: Path, checkpoint: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".ltx-dist").write_text("a file where a folder of ours should be")
    result = render(prompts, tmp_path / "out", checkpoint)
    assert result.exit_code == 74 and "move away what is in the way" in result.output
    assert "free space" not in result.output


@pytest.mark.parametrize("reader", ["gone", "full"])
def test_a_batch_goes_on_when_nobody_reads_what_it_prints(prompts: Path, tmp_path: Path, checkpoint: Path, reader: str):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "ltx_dist.cli", "render", prompts, "-o", out]
    command += ["--set", f"model.checkpoint={checkpoint}", *SMALL]
    if reader == "full" and not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with open("/dev/full" if reader == "full" else os.devnull, "w") as full:
        stdout = full if reader == "full" else subprocess.PIPE
        with subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True) as process:
            if process.stdout is not None:
                process.stdout.close()
            assert process.stderr is not None
            errors = process.stderr.read()
    assert (process.returncode, errors) == (0, "")
    assert json.loads((out / "run.json").read_text())["done"] == 3


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_exits_75_and_the_next_run_goes_on(tmp_path: Path, checkpoint: Path, signum: int):
    prompts, out = tmp_path / "prompts.txt", tmp_path / "out"
    prompts.write_text("".join(f"clip {index}\n" for index in range(40)))
    arguments = ["render", prompts, "-o", out, "--set", f"model.checkpoint={checkpoint}", *SMALL]
    command = [sys.executable, "-m", "ltx_dist.cli", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(list(out.glob("*.mp4"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signum)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert "Traceback" not in errors
    record = json.loads((out / "run.json").read_text())
    assert record["exit_code"] == 75 and record["done"] >= 1 and record["remaining"] >= 1
    assert record["done"] + record["failed"] + record["remaining"] == 40
    assert not list((out / ".ltx-dist" / "tmp").iterdir())
    again = run(*arguments)
    assert again.exit_code == 0 and len(list(out.glob("*.mp4"))) == 40


def test_plan_shows_workers_and_order_without_rendering(prompts: Path, checkpoint: Path):
    arguments = ["--set", f"model.checkpoint={checkpoint}", "--set", "placement.layout=pinned", *SMALL]
    result = run("plan", prompts, *arguments)
    assert result.exit_code == 0, result.output
    for expected in ("cpu:0", "encode_text", "cpu:1", "denoise", "cpu:2", "decode", "D1", "layout pinned"):
        assert expected in result.output


def test_the_demo_shows_its_timeline_from_a_folder_in_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shown: list[Path] = []
    monkeypatch.setattr("ltx_dist.cli._render", lambda *arguments: 0)
    monkeypatch.setattr(folders, "print_timeline", shown.append)
    result = run("demo", "-o", "~/clips")
    assert result.exit_code == 0 and shown == [tmp_path / "clips"]
    assert f"Open {tmp_path}/clips/index.html" in result.output


@pytest.mark.ray
def test_the_demo_overlaps_stages_on_ray_actors(tmp_path: Path):
    """Runs in a process of its own, as a user runs it, which starts and ends its own small cluster."""
    command = [sys.executable, "-m", "ltx_dist.cli", "demo", "-o", str(tmp_path), "--executor", "ray"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(list(tmp_path.glob("*.mp4"))) == 10
    for path in tmp_path.glob("*.mp4"):
        assert (
            read_video(path)[0].shape[0] == json.loads(path.with_suffix(".json").read_text())["request"]["num_frames"]
        )
    from ltx_dist.report.run_record import read_run_record, recorded_completions, recorded_recipe

    record = read_run_record(tmp_path)
    assert [worker["stages"] for worker in record["workers"]] == [
        ["encode_text", "encode_image"], ["denoise", "refine"], ["decode"],
    ]  # fmt: skip
    assert len(overlaps(recorded_completions(record), recorded_recipe(record))) >= 6, (
        "encode and decode run inside others' denoise"
    )
    assert "busy:" in result.stdout and "Open" in result.stdout
