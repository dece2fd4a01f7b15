"""Files in an output folder that are not ours: every command ends with the right answer and reads none of them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from foreign_files import make_device_link, make_fifo, make_giant, make_loop, make_socket

from ltx_dist.pipeline.payloads import Latents
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.store.artifact_folder import drop_artifacts
from ltx_dist.store.artifacts import ArtifactStore, saved_requests
from ltx_dist.store.files import clear_folder, write_atomically
from ltx_dist.store.found import ForeignFileError, open_found, read_found
from ltx_dist.store.tensor_file import pack, read, read_facts

REQUEST = RenderRequest("clip", "p", "", 32, 32, 5, 8.0, 2, 1.0, 0.0, 1, 0.0, None, 32)


def make_dangling_link(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


FOREIGN: dict[str, Callable[[Path], None]] = {
    "fifo": make_fifo,
    "device": make_device_link,
    "giant": make_giant,
    "folder": Path.mkdir,
    "socket": make_socket,
    "dangling": make_dangling_link,
    "loop": make_loop,
}


@pytest.fixture(autouse=True)
def alarm():
    """Ends the test with a traceback if something waits for a FIFO, which would take forever."""
    signal.alarm(60)
    yield
    signal.alarm(0)


@pytest.mark.parametrize("kind", FOREIGN)
def test_only_a_regular_file_of_a_likely_size_is_read(tmp_path: Path, kind: str) -> None:
    FOREIGN[kind](tmp_path / "x.json")
    with pytest.raises(FileNotFoundError if kind in ("dangling", "loop") else ForeignFileError):
        read_found(tmp_path / "x.json", 1000)


def test_a_link_to_a_file_is_followed_and_its_size_counts(tmp_path: Path) -> None:
    (tmp_path / "moved").write_bytes(b"x" * 1000)
    (tmp_path / "x.json").symlink_to(tmp_path / "moved")
    assert read_found(tmp_path / "x.json", 1000) == b"x" * 1000
    with pytest.raises(ForeignFileError, match="1000 bytes, where at most 999 are expected; remove it"):
        read_found(tmp_path / "x.json", 999)


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    tmp_path.joinpath("folder").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(ForeignFileError), open_found(tmp_path / "folder"):
            pass
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_spool_leaves_alone_what_is_no_file_of_its_own(tmp_path: Path, kind: str) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    (tmp_path / "tmp").mkdir()
    FOREIGN[kind](spool / "clip.safetensors")
    opened = ArtifactStore(spool, tmp_path / "tmp", 10**6)
    assert not opened.holds("clip", "key") and saved_requests(spool) == {}
    if kind != "folder":
        latents = Latents(torch.ones(1, 4, 2, 2, 2), torch.zeros(16, dtype=torch.uint8), "float32")
        opened.keep("clip", "key", latents)
        loaded = opened.load("clip", "key")
        assert isinstance(loaded, Latents) and torch.equal(loaded.latents, latents.latents)
    assert [path.name for path in spool.iterdir()] == ["clip.safetensors"]


@pytest.mark.fault(8)
def test_a_spool_that_is_a_link_deletes_nothing_where_it_leads(tmp_path: Path) -> None:
    outside = tmp_path / "models"
    outside.mkdir()
    (outside / "model.safetensors").write_bytes(b"weights")
    (tmp_path / ".ltx-dist").mkdir()
    (tmp_path / ".ltx-dist" / "spool").symlink_to(outside)
    with pytest.raises(NotADirectoryError, match="a link or a file in the place of one of our folders"):
        drop_artifacts(tmp_path / ".ltx-dist" / "spool", {"model"})
    assert (outside / "model.safetensors").read_bytes() == b"weights"


def test_a_linked_file_of_the_spool_is_unlinked_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"mine")
    spool = tmp_path / ".ltx-dist" / "spool"
    spool.mkdir(parents=True)
    (tmp_path / ".ltx-dist" / "tmp").mkdir()
    (spool / "clip.safetensors").symlink_to(tmp_path / "precious")
    ArtifactStore(spool, tmp_path / ".ltx-dist" / "tmp", 0).drop("clip")
    assert (tmp_path / "precious").read_bytes() == b"mine" and not list(spool.iterdir())


def test_a_folder_that_was_left_among_unfinished_files_stays(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    clear_folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("length", range(0, 400, 13))
def test_a_tensor_file_cut_short_or_of_another_length_is_none(tmp_path: Path, length: int) -> None:
    whole = pack("key", {"x": torch.arange(6.0)}, {"fact": "f"})
    path = tmp_path / "x.safetensors"
    path.write_bytes(whole)
    assert read_facts(path) is not None and (found := read(path, "key")) is not None
    assert torch.equal(found[0]["x"], torch.arange(6.0)) and found[1]["fact"] == "f"
    for content in (whole[: min(length, len(whole) - 1)], whole + b"\0" * (length + 1), b"\xff" * (length + 8)):
        path.write_bytes(content)
        assert read_facts(path) is None and read(path, "key") is None


def run(*arguments: str | Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ltx_dist.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished clip."""
    folder = tmp_path_factory.mktemp("rendered")
    (folder / "p.jsonl").write_text('{"prompt": "a red circle", "name": "good", "num_inference_steps": 1}\n')
    done = run("render", folder / "p.jsonl", "-o", folder / "out", "--executor", "local")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.fault(12)
@pytest.mark.parametrize("kind", FOREIGN)
def test_verify_report_and_timeline_end_and_say_what_is_wrong(rendered: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    shutil.copytree(rendered / "out", out)
    shutil.copy(out / "good.json", out / "mp4.json")
    FOREIGN[kind](out / "mp4.mp4")
    FOREIGN[kind](out / "sidecar.json")
    checked = run("verify", out)
    assert checked.returncode == 3 and "Traceback" not in checked.stderr, checked.stderr
    named = 2 if kind == "folder" else 3  # a folder that ends in .json may be the user's own
    assert f"1 of {named} clips are intact" in checked.stdout
    reported = run("report", out)
    assert reported.returncode == 0 and "good" in (out / "index.html").read_text(), reported.stderr
    (out / "run.json").unlink()
    FOREIGN[kind](out / "run.json")
    for command in ("timeline", "report"):
        ended = run(command, out)
        expected = 0 if command == "report" and kind in ("dangling", "loop") else 2
        assert ended.returncode == expected and "Traceback" not in ended.stderr, (command, ended.stderr)


@pytest.mark.fault(12)
def test_rendering_goes_round_what_is_in_its_way(rendered: Path, tmp_path: Path) -> None:
    """A foreign folder whose name ends in .json is left alone; a FIFO with a clip's name is replaced by the clip."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.json").mkdir()
    os.mkfifo(out / "good.mp4")
    make_device_link(out / "good.json")
    done = run("render", rendered / "p.jsonl", "-o", out, "--executor", "local")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (out / "notes.json").is_dir() and "1 of 1 clips are intact" in run("verify", out).stdout


def test_a_folder_by_a_clips_name_ends_a_run_before_it_renders(rendered: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "good.mp4").mkdir(parents=True)
    done = run("render", rendered / "p.jsonl", "-o", out, "--executor", "local")
    assert done.returncode == 74, done.stdout + done.stderr
    assert "good.mp4: a folder where a file of a clip should be; move away what is in the way" in done.stdout
    assert "free space" not in done.stdout


@pytest.mark.fault(8)
def test_a_mark_that_is_a_link_makes_nothing_outside(rendered: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(rendered / "out", out)
    (out / ".ltx-dist" / "keeps-latents").symlink_to(tmp_path / "made")
    done = run("render", rendered / "p.jsonl", "-o", out, "--executor", "local", "--keep-latents")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "made").exists() and (out / ".ltx-dist" / "keeps-latents").is_file()
    write_atomically(out / ".ltx-dist" / "keeps-latents", b"")


TRICKS = {
    "ffconcat": b"ffconcat version 1.0\nfile 'fifo.mp4'\n",
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5998 RTP/AVP 96\n",
    "hls": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfifo.mp4\n#EXT-X-ENDLIST\n",
}
SOCKETS = Path("/proc/net/udp")
PORT = ":176E "
"""5998, as SOCKETS lists it."""


@pytest.mark.fault(11)
@pytest.mark.skipif(not SOCKETS.exists(), reason="needs Linux, which lists the ports that are open")
@pytest.mark.parametrize("trick", TRICKS)
def test_a_clip_that_is_no_mp4_opens_no_other_file_and_no_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trick: str
) -> None:
    """FFmpeg would wait for a FIFO until the alarm, and for packets at a port for 20 s."""
    from ltx_dist.media.mp4 import check_video

    os.mkfifo(tmp_path / "fifo.mp4")
    monkeypatch.chdir(tmp_path)
    assert PORT not in SOCKETS.read_text(), "another program has the port"
    is_over = threading.Event()

    def is_opened() -> bool:
        while PORT not in SOCKETS.read_text():
            if is_over.wait(0.1):
                return False
        return True

    with ThreadPoolExecutor() as pool:
        opened = pool.submit(is_opened)
        try:
            with pytest.raises(ValueError, match="the mp4 cannot be read"):
                check_video(TRICKS[trick], 5, 32, 32, 8.0)
        finally:
            is_over.set()
    assert not opened.result()
