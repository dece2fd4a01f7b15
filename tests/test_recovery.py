"""What is left behind when a run ends early, and what the next run makes of it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from typer.testing import CliRunner

from ltx_dist.cli import app
from ltx_dist.output.files import OutputError
from ltx_dist.output.spool import Spool, SpoolWriter
from ltx_dist.render_key import STAGE_FIELDS, stage_key
from ltx_dist.types import Conditioning, Latents, RenderRequest, Stage

REQUEST = RenderRequest("clip", "a prompt", "", 64, 64, 9, 25.0, 2, 3.0, 0.0, 3, 0.05, 0.025, 32)
LATENTS = Latents(torch.randn(1, 16, 2, 2, 2), torch.Generator().manual_seed(5).get_state(), "bfloat16")
CONDITIONING = Conditioning(torch.randn(1, 8, 4, dtype=torch.bfloat16), torch.ones(1, 8, dtype=torch.bool), None, None)


def assert_equal(a: object, b: object, names: tuple[str, ...]) -> None:
    for name in names:
        one, other = getattr(a, name), getattr(b, name)
        assert torch.equal(one, other) and one.dtype == other.dtype if isinstance(one, torch.Tensor) else one == other


def test_outputs_come_back_bit_for_bit(tmp_path: Path):
    spool = Spool(tmp_path, limit_bytes=10**6)
    spool.keep("clip", Stage.DENOISE, "k", LATENTS)
    spool.keep("clip", Stage.ENCODE_TEXT, "k", CONDITIONING)
    again = Spool(tmp_path, limit_bytes=10**6)
    assert_equal(again.load("clip", Stage.DENOISE), LATENTS, ("latents", "generator_state", "embeds_dtype"))
    assert_equal(again.load("clip", Stage.ENCODE_TEXT), CONDITIONING, Conditioning.__slots__)


def test_an_output_is_found_under_its_own_key_only(tmp_path: Path):
    spool = Spool(tmp_path, limit_bytes=10**6)
    spool.keep("clip", Stage.DENOISE, "k", LATENTS)
    assert spool.holds("clip", Stage.DENOISE, "k")
    assert not spool.holds("clip", Stage.DENOISE, "another")
    assert not spool.holds("clip", Stage.ENCODE_TEXT, "k")
    (tmp_path / "clip.denoise.safetensors").write_bytes(b"torn")
    assert not spool.holds("clip", Stage.DENOISE, "k"), "a damaged file is as good as none"


def test_the_limit_holds_and_dropping_makes_room(tmp_path: Path):
    Spool(tmp_path, limit_bytes=10**6).keep("a", Stage.DENOISE, "k", LATENTS)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    spool = Spool(tmp_path, limit_bytes=size + 10, batch={"a", "b"})
    spool.keep("b", Stage.DENOISE, "k", LATENTS)
    assert not spool.holds("b", Stage.DENOISE, "k")
    spool.drop("a")
    spool.keep("b", Stage.DENOISE, "k", LATENTS)
    assert spool.holds("b", Stage.DENOISE, "k")


def test_writing_an_output_again_counts_it_once(tmp_path: Path):
    spool = Spool(tmp_path, limit_bytes=10**6)
    for _ in range(3):
        spool.keep("a", Stage.DENOISE, "k", LATENTS)
    assert spool._used == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_files_of_clips_that_are_in_the_batch_no_more_make_room(tmp_path: Path):
    Spool(tmp_path, limit_bytes=10**6).keep("renamed.since", Stage.DENOISE, "k", LATENTS)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    spool = Spool(tmp_path, limit_bytes=2 * size + 10, batch={"a", "b", "c"})
    spool.keep("a", Stage.DENOISE, "k", LATENTS)
    assert spool.holds("renamed.since", Stage.DENOISE, "k"), "there is room for it yet"
    spool.keep("b", Stage.DENOISE, "k", LATENTS)
    spool.keep("c", Stage.DENOISE, "k", LATENTS)
    assert not spool.holds("renamed.since", Stage.DENOISE, "k")
    assert spool.holds("a", Stage.DENOISE, "k") and spool.holds("b", Stage.DENOISE, "k")
    assert not spool.holds("c", Stage.DENOISE, "k"), "a clip of the batch is not dropped for another"


def test_a_disk_error_is_told_at_the_next_call(tmp_path: Path):
    writer = SpoolWriter(Spool(tmp_path / "spool", limit_bytes=10**6))
    (tmp_path / "spool").rmdir()
    writer.keep("a", Stage.DENOISE, "k", lambda: LATENTS)
    with pytest.raises(OutputError, match="spool"):
        writer.close()


def test_stage_keys_cover_what_decides_the_output_and_nothing_else():
    changed = {
        "prompt": "other", "negative_prompt": "other", "height": 96, "width": 96, "num_frames": 17, "frame_rate": 24.0,
        "num_inference_steps": 3, "guidance_scale": 2.0, "guidance_rescale": 0.5, "seed": 4, "decode_timestep": 0.1,
        "decode_noise_scale": 0.5, "max_sequence_length": 64, "request_id": "other",
    }  # fmt: skip
    for stage in STAGE_FIELDS:
        key = stage_key(stage, REQUEST, {"vae": "1"}, "LTXPipeline", "float32")
        for name, value in changed.items():
            other = stage_key(stage, replace(REQUEST, **{name: value}), {"vae": "1"}, "LTXPipeline", "float32")
            assert (other != key) == (name in STAGE_FIELDS[stage]), (stage, name)
    assert stage_key(Stage.ENCODE_TEXT, replace(REQUEST, guidance_scale=1.0), {}, "p", "f") != stage_key(
        Stage.ENCODE_TEXT, REQUEST, {}, "p", "f"
    ), "without guidance there is no negative embedding"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", "0.9.1")


def arguments(folder: Path, checkpoint: Path, *more: str) -> list[str]:
    prompts = folder.parent / "prompts.txt"
    prompts.write_text("".join(f"clip number {index}\n" for index in range(12)))
    settings = [
        f"model.checkpoint={checkpoint}", "defaults.height=64", "defaults.width=64", "defaults.num_frames=9",
        "defaults.num_inference_steps=4", "placement.threads=1", "placement.residency=time_sliced", "placement.wave=4",
    ]  # fmt: skip
    return ["render", str(prompts), "-o", str(folder), *(item for s in settings for item in ("--set", s)), *more]


def digests(folder: Path) -> dict[str, tuple[str, ...]]:
    sidecars = [json.loads(path.with_suffix(".json").read_text()) for path in folder.glob("*.mp4")]
    names = ("latents_sha256", "frames_sha256", "mp4_sha256")
    return {sidecar["request"]["request_id"]: tuple(sidecar[name] for name in names) for sidecar in sidecars}


def spooled(folder: Path, stage: Stage) -> set[str]:
    return {path.name.split(".")[0] for path in (folder / ".ltx-dist" / "spool").glob(f"*.{stage}.safetensors")}


@pytest.mark.slow
def test_a_killed_run_goes_on_at_the_stage_and_gives_the_same_clips(tmp_path: Path, checkpoint: Path):
    """SIGKILL at random times until the batch is done: equal hashes, and no spooled clip is denoised again."""
    expected, killed = tmp_path / "expected", tmp_path / "killed"
    assert CliRunner().invoke(app, arguments(expected, checkpoint)).exit_code == 0
    rng = random.Random(3)
    num_kills = 0
    for _ in range(40):
        kept = spooled(killed, Stage.DENOISE) if killed.exists() else set()
        process = subprocess.Popen(
            [sys.executable, "-m", "ltx_dist.cli", *arguments(killed, checkpoint)], stdout=subprocess.DEVNULL
        )
        started = wait_for_work(process, killed)
        try:
            process.wait(rng.uniform(0.05, 0.6) if started else 60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            num_kills += 1
            continue
        break
    assert process.returncode == 0 and num_kills >= 2
    events = json.loads((killed / "run.json").read_text())["events"]
    again = {event["request_id"] for event in events if event["stage"] == "denoise"} & kept
    assert not again, "these were denoised before the last kill"
    assert digests(killed) == digests(expected) and len(digests(killed)) == 12
    assert not spooled(killed, Stage.DENOISE), "nothing is kept of published clips"


def wait_for_work(process: subprocess.Popen[bytes], folder: Path) -> bool:
    """Until the run's first output of this start is there, or it has ended."""
    before = time.time()
    while process.poll() is None:
        if any(path.stat().st_mtime > before for path in folder.glob(".ltx-dist/spool/*.safetensors")):
            return True
        if any(path.stat().st_mtime > before for path in folder.glob("*.mp4")):
            return True
        time.sleep(0.02)
    return False


def test_kept_latents_are_decoded_again_with_other_settings(tmp_path: Path, checkpoint: Path):
    out = tmp_path / "out"
    keep = ["--set", "recovery.keep_latents=true"]
    assert CliRunner().invoke(app, arguments(out, checkpoint, *keep)).exit_code == 0
    assert len(spooled(out, Stage.DENOISE)) == 12
    before = digests(out)
    again = CliRunner().invoke(app, arguments(out, checkpoint, *keep, "--set", "output.crf=30"))
    assert again.exit_code == 0
    events = json.loads((out / "run.json").read_text())["events"]
    assert {event["stage"] for event in events} == {"decode"} and len(events) == 12
    for name, (latents, frames, mp4) in digests(out).items():
        assert (latents, frames) == before[name][:2] and mp4 != before[name][2]
