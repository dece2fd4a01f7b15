"""What a Publisher leaves in the folder, whether all goes well or not."""

from __future__ import annotations

import errno
import json
import os
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from builders import D, E, V

from ltx_dist.media.mp4 import encode_video
from ltx_dist.pipeline.payloads import EncodedVideo
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import Mp4Settings
from ltx_dist.pipeline.work import Assignment, Completion, Failure, RenderResult, StageReport
from ltx_dist.store.files import to_json, write_atomically
from ltx_dist.store.lock import folder_lock
from ltx_dist.store.publisher import Publisher

REQUEST = RenderRequest("003-été", 'a "red" circle\n圆', "", 64, 96, 9, 24.0, 8, 3.0, 0.0, 7, 0.0, None, 64)
CHECKPOINT = {"name": "demo", "digests": {"vae": "12ab"}}


@cache
def video(colour: int = 90) -> EncodedVideo:
    """A video sealed as by a worker: colour 90 is that of "key-1", any other that of "key-2"."""
    frames = [np.full((64, 96, 3), colour, dtype=np.uint8)] * 9
    facts = {"render_key": "key-1" if colour == 90 else "key-2", "latents_sha256": "ab" * 32}
    return encode_video(
        frames, height=64, width=96, num_frames=9, frame_rate=24.0, output=Mp4Settings(), metadata={}, facts=facts
    )


def completion(stage: str, worker_id: str, seconds: float, **report: object) -> Completion:
    return Completion(Assignment((REQUEST.request_id,), stage, worker_id), 0.0, seconds, StageReport(seconds, **report))  # type: ignore[arg-type]


def done(colour: int = 90) -> RenderResult:
    completions = (
        completion(E, "gpu-0", 0.1, load_seconds=1.5),
        replace(completion(D, "gpu-1", 0.2), failure=Failure.CRASH),
        completion(D, "gpu-2", 2.0, latents_sha256=("ab" * 32,), peak_bytes=123),
        completion(V, "gpu-0", 0.5),
    )
    return RenderResult(REQUEST, "done", completions, video=video(colour))


def failed() -> RenderResult:
    broken = completion(D, "gpu-1", 0.2, error="boom")
    return RenderResult(REQUEST, "failed", (broken,), error="denoise: RuntimeError: boom")


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@contextmanager
def full_disk(after_bytes: int) -> Iterator[None]:
    """Lets no file grow beyond this size, so that write() fails half-way, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_done_clip_is_two_files(tmp_path: Path) -> None:
    Publisher(tmp_path / "new" / "out", CHECKPOINT).publish(done(), "key-1")
    assert files(tmp_path / "new" / "out") == {"003-été.mp4", "003-été.json"}
    assert (tmp_path / "new" / "out" / "003-été.mp4").read_bytes() == video().mp4


def test_the_sidecar_says_how_the_clip_was_made(tmp_path: Path) -> None:
    Publisher(tmp_path, CHECKPOINT).publish(done(), "key-1")
    text = (tmp_path / "003-été.json").read_text()
    sidecar = json.loads(text)
    assert text == to_json(sidecar).decode() and "圆" in text
    assert sidecar["status"] == "done" and sidecar["render_key"] == "key-1" and "error" not in sidecar
    assert sidecar["request"]["prompt"] == REQUEST.prompt and sidecar["request"]["num_frames"] == 9
    assert sidecar["latents_sha256"] == "ab" * 32
    assert sidecar["mp4_sha256"] == video().mp4_sha256 and sidecar["frames_sha256"] == video().frames_sha256
    assert sidecar["num_frames"] == 9 and sidecar["checkpoint"] == CHECKPOINT
    assert set(sidecar["versions"]) == {"ltx_dist", "torch", "diffusers", "transformers", "av"}
    retried = {"worker": "gpu-2", "seconds": 2.0, "load_seconds": 0.0, "peak_bytes": 123}
    assert sidecar["stages"]["denoise"] == retried and list(sidecar["stages"]) == ["decode", "denoise", "encode_text"]


def test_published_means_this_key_and_this_mp4(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path, CHECKPOINT)
    assert not publisher.is_published(REQUEST, "key-1")
    publisher.publish(done(), "key-1")
    assert publisher.is_published(REQUEST, "key-1") and Publisher(tmp_path, {}).is_published(REQUEST, "key-1")
    assert not publisher.is_published(REQUEST, "key-2") and not publisher.is_published(
        replace(REQUEST, request_id="004"), "key-1"
    )
    mp4 = tmp_path / "003-été.mp4"
    mp4.write_bytes(mp4.read_bytes()[:-1])
    assert not publisher.is_published(REQUEST, "key-1")
    mp4.unlink()
    assert not publisher.is_published(REQUEST, "key-1")


LOST = {"status", "versions", "stages"}


@pytest.mark.parametrize(
    "content", [None, b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 10_000, b'{"status": "done"}']
)
def test_a_lost_or_damaged_sidecar_is_written_again_from_the_mp4(tmp_path: Path, content: bytes | None) -> None:
    publisher = Publisher(tmp_path, CHECKPOINT)
    publisher.publish(done(), "key-1")
    sidecar = tmp_path / "003-été.json"
    before = json.loads(sidecar.read_text())
    sidecar.unlink() if content is None else sidecar.write_bytes(content)
    assert not publisher.is_published(REQUEST, "key-2")
    assert publisher.is_published(REQUEST, "key-1")
    after = json.loads(sidecar.read_text())
    assert after["status"] == "done" and after["stages"] == {}, "who worked on it when is lost, and nothing else"
    assert {key: after[key] for key in after if key not in LOST} == {key: before[key] for key in before.keys() - LOST}


@pytest.mark.parametrize("position", [100, -200, -60, -1])
def test_a_damaged_mp4_without_a_sidecar_is_not_taken_for_whole(tmp_path: Path, position: int) -> None:
    publisher = Publisher(tmp_path, CHECKPOINT)
    publisher.publish(done(), "key-1")
    (tmp_path / "003-été.json").unlink()
    content = bytearray(video().mp4)
    content[position] ^= 4
    (tmp_path / "003-été.mp4").write_bytes(content)
    assert not publisher.is_published(REQUEST, "key-1") and not (tmp_path / "003-été.json").exists()


def test_a_late_second_attempt_leaves_one_file_and_one_record(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path, CHECKPOINT)
    assert publisher.publish(done(), "key-1")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    late = replace(done(), completions=(completion(V, "gpu-9", 9.0),))
    assert not publisher.publish(late, "key-1")
    assert not publisher.publish(failed(), "key-1"), "nor does a late failure undo it"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_of_drivers_that_publish_at_once_one_wins(tmp_path: Path) -> None:
    """Two runs that share nothing but the folder, as on a file system without locks."""
    publishers = [Publisher(tmp_path, CHECKPOINT) for _ in range(8)]
    for publisher in publishers:
        assert not publisher.is_published(REQUEST, "key-1")
    with ThreadPoolExecutor(8) as threads:
        wins = list(threads.map(lambda publisher: publisher.publish(done(), "key-1"), publishers))
    assert sum(wins) == 1, wins
    assert publishers[0].is_published(REQUEST, "key-1") and files(tmp_path) == {"003-été.mp4", "003-été.json"}


def test_without_hard_links_clips_are_published_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", no_links)
    publisher = Publisher(tmp_path, CHECKPOINT)
    assert publisher.publish(done(), "key-1") and not publisher.publish(done(), "key-1")
    assert publisher.publish(done(colour=200), "key-2") and publisher.is_published(REQUEST, "key-2")


def test_a_failed_clip_has_a_sidecar_and_leaves_the_mp4_alone(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path, CHECKPOINT)
    publisher.publish(failed(), "key-1")
    sidecar = json.loads((tmp_path / "003-été.json").read_text())
    assert (sidecar["status"], sidecar["error"]) == ("failed", "denoise: RuntimeError: boom")
    assert sidecar["stages"]["denoise"]["worker"] == "gpu-1" and files(tmp_path) == {"003-été.json"}
    publisher.publish(done(), "key-1")
    assert publisher.is_published(REQUEST, "key-1")
    publisher.publish(failed(), "key-2")
    assert (tmp_path / "003-été.mp4").read_bytes() == video().mp4
    assert json.loads((tmp_path / "003-été.json").read_text())["status"] == "failed"
    assert not publisher.is_published(REQUEST, "key-2") and publisher.is_published(REQUEST, "key-1")


def test_a_clip_made_anew_takes_the_place_of_the_old(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path, CHECKPOINT)
    publisher.publish(done(), "key-1")
    publisher.publish(done(colour=200), "key-2")
    assert publisher.is_published(REQUEST, "key-2") and not publisher.is_published(REQUEST, "key-1")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (replace(done(), request=replace(REQUEST, num_frames=17)), "9 frames instead of 17"),
        (replace(done(), request=replace(REQUEST, frame_rate=25.0)), "24 frames per second instead of 25"),
        (replace(done(), video=replace(video(), mp4=video().mp4[:-100])), "damaged"),
    ],
)
def test_a_wrong_video_is_not_published(tmp_path: Path, wrong: RenderResult, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Publisher(tmp_path, CHECKPOINT).publish(wrong, "key-1")
    assert files(tmp_path) == set()


@pytest.mark.parametrize("request_id", ["run", "trace", "../up", "/up", "a/../b", "a//b", "a/run"])
def test_names_that_would_hit_other_files_are_our_own_mistake(tmp_path: Path, request_id: str) -> None:
    result = replace(failed(), request=replace(REQUEST, request_id=request_id))
    with pytest.raises(AssertionError):
        Publisher(tmp_path / "a" / "out", CHECKPOINT).publish(result, "key-1")
    assert files(tmp_path) == set()


def test_a_full_disk_leaves_the_old_clip_and_nothing_else(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path, CHECKPOINT)
    publisher.publish(done(), "key-1")
    with full_disk(after_bytes=100), pytest.raises(OSError):
        publisher.publish(done(colour=200), "key-2")
    assert publisher.is_published(REQUEST, "key-1") and files(tmp_path) == {"003-été.mp4", "003-été.json"}


def test_a_crash_between_the_two_files_is_published(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path, CHECKPOINT)
    publisher.publish(done(), "key-1")
    (tmp_path / "003-été.mp4").write_bytes(video(200).mp4)  # the new mp4 is there, its sidecar not yet
    assert not publisher.is_published(REQUEST, "key-1") and publisher.is_published(REQUEST, "key-2")
    assert json.loads((tmp_path / "003-été.json").read_text())["mp4_sha256"] == video(200).mp4_sha256


def test_what_a_crash_left_is_cleared_at_the_start(tmp_path: Path) -> None:
    Publisher(tmp_path, CHECKPOINT)
    (tmp_path / ".ltx-dist" / "tmp" / "003-été.mp4.4711.0badcafe").write_bytes(b"half a cl")
    (tmp_path / "mine.txt").write_text("not ours")
    Publisher(tmp_path, CHECKPOINT)
    assert files(tmp_path) == {"mine.txt"}


def test_write_atomically_replaces_and_takes_the_longest_names(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 120 + ".json")
    for data in (b"old", b"new"):
        write_atomically(path, data)
    assert path.read_bytes() == b"new" and files(tmp_path) == {path.name}
    (tmp_path / "plain").write_bytes(b"")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode  # readable for whom the umask allows


def test_a_name_that_is_taken_by_a_folder_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").mkdir()
    with pytest.raises(OSError):
        write_atomically(tmp_path / "clip.mp4", b"data")
    assert files(tmp_path) == set()


def test_the_poster_is_that_of_the_mp4_beside_it(tmp_path: Path) -> None:
    poster = tmp_path / "003-été.webp"
    Publisher(tmp_path, CHECKPOINT, posters=True).publish(done(), "key-1")
    assert poster.read_bytes() == video().poster
    Publisher(tmp_path, CHECKPOINT, posters=True).publish(done(200), "key-2")
    assert poster.read_bytes() == video(200).poster != video().poster
    Publisher(tmp_path, CHECKPOINT, posters=False).publish(done(), "key-1")
    assert not poster.exists(), "that of another clip would be wrong"


def test_a_clip_that_fails_again_keeps_its_mp4_and_poster(tmp_path: Path) -> None:
    Publisher(tmp_path, CHECKPOINT, posters=True).publish(done(), "key-1")
    Publisher(tmp_path, CHECKPOINT, posters=True).publish(failed(), "key-2")
    assert (tmp_path / "003-été.webp").read_bytes() == video().poster


def test_a_folder_of_clips_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with folder_lock(out) as held:
        publisher = Publisher(out, CHECKPOINT, held)
        for name in ("coast/a", "coast/b"):
            assert publisher.publish(
                replace(done(), request=replace(REQUEST, request_id=name), completions=()), "key-1"
            )
            assert (out / f"{name}.mp4").is_file() and (out / f"{name}.json").is_file()
            (out / "coast").rename(tmp_path / name.replace("/", "-"))
        (out / "coast").symlink_to(elsewhere)
        with pytest.raises(OSError, match="a link or a file in the place of one of our folders"):
            publisher.publish(replace(done(), request=replace(REQUEST, request_id="coast/c"), completions=()), "key-1")
    assert not list(elsewhere.iterdir())


def test_the_sidecar_of_a_kept_clip_learns_what_is_known_of_its_row(tmp_path: Path) -> None:
    name = REQUEST.request_id
    Publisher(tmp_path, CHECKPOINT, notes={name: {"settings": {"a": 1}, "meta": {"id": 7}}}).publish(done(), "key-1")
    sidecar = tmp_path / f"{name}.json"
    before = json.loads(sidecar.read_text())
    assert before["meta"] == {"id": 7}

    varied = {"variation": {"of": "x", "values": {"seed": 7}}}
    publisher = Publisher(tmp_path, CHECKPOINT, notes={name: {"settings": {"a": 2}, **varied}})
    assert not publisher.is_published(REQUEST, "key-2") and json.loads(sidecar.read_text()) == before
    assert publisher.is_published(REQUEST, "key-1")
    assert not publisher.update_notes(REQUEST, publisher.recorded(REQUEST)), "known by now"
    after = json.loads(sidecar.read_text())
    assert after == {key: value for key, value in before.items() if key != "meta"} | varied
    sidecar.write_text(json.dumps(before))
    assert publisher.update_notes(REQUEST, publisher.recorded(REQUEST)) and json.loads(sidecar.read_text()) == after
    sidecar.unlink()
    assert not publisher.update_notes(REQUEST, publisher.recorded(REQUEST)) and not sidecar.exists()
