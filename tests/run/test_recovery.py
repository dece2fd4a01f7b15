"""What a run leaves behind when it ends early, and what the next run does with it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import tiny
import torch
from typer.testing import CliRunner

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.cli import app
from ltx_dist.inputs.kept_request import kept_request
from ltx_dist.pipeline.payloads import Latents
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.store.artifacts import ArtifactStore, saved_requests
from ltx_dist.store.background_writer import BackgroundWriter
from ltx_dist.store.output_errors import OutputError

REQUEST = RenderRequest("clip", "a prompt", "", 64, 64, 9, 25.0, 2, 3.0, 0.0, 3, 0.05, 0.025, 32)
TAKES_TIMESTEPS = Checkpoint("c", Path("c"), "LTXConditionPipeline", 32, 8, True, 128, {}, {})
LATENTS = Latents(torch.randn(1, 16, 2, 2, 2), torch.Generator().manual_seed(5).get_state(), "bfloat16")


def make_spool(folder: Path, limit_bytes: int = 10**6, batch: Collection[str] = ()) -> ArtifactStore:
    (folder / "tmp").mkdir(exist_ok=True)
    return ArtifactStore(folder / "spool", folder / "tmp", limit_bytes, batch)


def keep(spool: ArtifactStore, name: str) -> None:
    spool.keep(name, "k", LATENTS, {"request": json.dumps(asdict(replace(REQUEST, request_id=name)))})


def size_on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "spool").iterdir())


def test_latents_come_back_bit_for_bit(tmp_path: Path):
    keep(make_spool(tmp_path), "clip")
    again = make_spool(tmp_path).load("clip", "k")
    assert isinstance(again, Latents)
    assert torch.equal(again.latents, LATENTS.latents) and again.latents.dtype == torch.float32
    assert torch.equal(again.generator_state, LATENTS.generator_state) and again.embeds_dtype == "bfloat16"


def test_latents_are_found_under_their_own_key_only(tmp_path: Path):
    spool = make_spool(tmp_path)
    keep(spool, "clip")
    assert spool.holds("clip", "k") and not spool.holds("clip", "another") and not spool.holds("other", "k")
    (tmp_path / "spool" / "clip.safetensors").write_bytes(b"torn")
    assert not spool.holds("clip", "k"), "a damaged file is as good as none"


def test_the_limit_holds_and_dropping_makes_room(tmp_path: Path):
    keep(make_spool(tmp_path), "a")
    spool = make_spool(tmp_path, size_on_disk(tmp_path) + 10, {"a", "b"})
    keep(spool, "b")
    assert not spool.holds("b", "k") and spool.num_refused == 1
    spool.drop("a")
    keep(spool, "b")
    assert spool.holds("b", "k")


def test_writing_again_counts_once(tmp_path: Path):
    spool = make_spool(tmp_path)
    for _ in range(3):
        keep(spool, "a")
    assert spool._used == size_on_disk(tmp_path)


def test_files_of_clips_that_are_in_the_batch_no_more_make_room(tmp_path: Path):
    keep(make_spool(tmp_path), "renamed.since")
    spool = make_spool(tmp_path, 2 * size_on_disk(tmp_path) + 10, {"a", "b", "c"})
    keep(spool, "a")
    assert spool.holds("renamed.since", "k"), "there is room for it yet"
    keep(spool, "b")
    keep(spool, "c")
    assert not spool.holds("renamed.since", "k")
    assert spool.holds("a", "k") and spool.holds("b", "k")
    assert not spool.holds("c", "k"), "a clip of the batch is not dropped for another"


def test_a_flipped_bit_is_found_and_the_file_is_as_good_as_none(tmp_path: Path):
    spool = make_spool(tmp_path)
    keep(spool, "clip")
    path = tmp_path / "spool" / "clip.safetensors"
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)
    assert spool.load("clip", "k") is None
    assert not spool.holds("clip", "k"), "so that the clip is not asked for again"


def test_a_kept_file_tells_its_request(tmp_path: Path):
    timed = replace(REQUEST, request_id="timed", timesteps=(1000.0, 500.0))
    spool = make_spool(tmp_path)
    spool.keep("timed", "k", LATENTS, {"request": json.dumps(asdict(timed))})
    keep(spool, "clip")
    of_files = saved_requests(tmp_path / "spool").items()
    assert [kept_request(path, told, TAKES_TIMESTEPS) for path, told in of_files] == [REQUEST, timed]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"request_id": "../../evil"}, "request_id: '../../evil' is not the file's name"),
        ({"request_id": ["clip"]}, "request_id: ['clip'] is not the file's name"),
        ({"height": 65}, "height: 65 is not a multiple of 32; use 64 or 96"),
        ({"num_inference_steps": "2"}, "num_inference_steps: "),
        ({"prompt": "a\x1b[2J"}, "prompt: has the control character U+001B"),
        ({"extra": 1}, "is not a complete request"),
    ],
)
def test_a_crafted_file_is_refused_by_name(tmp_path: Path, change: dict[str, object], message: str):
    path = tmp_path / "clip.safetensors"
    with pytest.raises(ValueError) as refused:
        kept_request(path, json.dumps(asdict(REQUEST) | change), TAKES_TIMESTEPS)
    assert str(refused.value).startswith(f"{path}: {message}") and "remove the file" in str(refused.value)


def test_a_file_whose_request_is_no_json_is_refused(tmp_path: Path):
    for told in ("", "[", "[" * 100_000, "3"):
        with pytest.raises(ValueError, match="is not a complete request"):
            kept_request(tmp_path / "clip.safetensors", told, TAKES_TIMESTEPS)


def test_a_disk_error_is_told_at_the_next_call_and_at_the_end(tmp_path: Path):
    spool, writer = make_spool(tmp_path), BackgroundWriter("spool")
    (tmp_path / "tmp").rmdir()
    writer.keep(lambda: LATENTS, lambda latents: keep(spool, "a"))
    writer._thread.submit(lambda: None).result()
    with pytest.raises(OutputError, match="tmp"):
        writer.do(lambda: spool.drop("b"))
    with pytest.raises(OutputError, match="tmp"):
        writer.close()


def test_latents_that_went_with_their_node_are_not_the_batchs_end(tmp_path: Path):
    def gone() -> Latents:
        raise RuntimeError("the object was on a node that is gone")

    spool, writer = make_spool(tmp_path), BackgroundWriter("spool")
    writer.keep(gone, lambda latents: keep(spool, "a"))
    writer.keep(lambda: LATENTS, lambda latents: keep(spool, "b"))
    writer.close()
    assert not spool.holds("a", "k") and spool.holds("b", "k")


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


def spooled(folder: Path) -> set[str]:
    return {path.stem for path in (folder / ".ltx-dist" / "spool").glob("*.safetensors")}


def published(folder: Path) -> set[str]:
    """Clips with an mp4, from which the next run makes the sidecar if it is missing. Latents may be there, too."""
    return {path.stem for path in folder.glob("*.mp4")}


@pytest.mark.slow
def test_a_killed_run_goes_on_at_the_stage_and_gives_the_same_clips(tmp_path: Path, checkpoint: Path):
    """After SIGKILLs at random times, a run to the end gives equal hashes, and denoises no clip that has latents."""
    expected, killed = tmp_path / "expected", tmp_path / "killed"
    assert CliRunner().invoke(app, arguments(expected, checkpoint)).exit_code == 0
    rng = random.Random(3)
    command = [sys.executable, "-m", "ltx_dist.cli", *arguments(killed, checkpoint)]
    num_kills = 0
    while num_kills < 3 or not spooled(killed) - published(killed):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_for_latents(process, killed)
        time.sleep(rng.uniform(0.0, 0.1))
        assert process.poll() is None, "the batch is long enough to be killed a few times"
        process.kill()
        process.wait()
        num_kills += 1
    kept = spooled(killed) - published(killed)
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
    events = json.loads((killed / "run.json").read_text())["events"]
    assert kept <= {event["request_id"] for event in events if event["stage"] == "decode"}
    assert not kept & {event["request_id"] for event in events if event["stage"] == "denoise"}
    assert digests(killed) == digests(expected) and len(digests(killed)) == 12
    assert not spooled(killed), "nothing is kept of published clips"


def wait_for_latents(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Waits until this start has written latents or has ended."""
    before = time.time()
    while process.poll() is None:
        if any(path.stat().st_mtime > before for path in folder.glob(".ltx-dist/spool/*.safetensors")):
            return
        time.sleep(0.01)
