"""A publish that is cut at every call it makes to the file system, by a kill, a full disk and a broken one.

Each case runs in a forked child that fails at one call; then a new Publisher opens the folder, as the next run does.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltx_dist.config import OutputConfig
from ltx_dist.output.publisher import Publisher
from ltx_dist.output.verify import verify_folder
from ltx_dist.output.video import encode_video
from ltx_dist.types import EncodedVideo, RenderRequest, RenderResult

REQUEST = RenderRequest("clip", "p", "", 32, 32, 5, 8.0, 2, 1.0, 0.0, 1, 0.0, None, 32)
CALLS = [(io, "open"), (os, "open"), (os, "fsync"), (os, "replace")]
"""What writing a file atomically is made of. Each is failed before it is done, and after."""


def make_video(colour: int) -> EncodedVideo:
    frames = [np.full((32, 32, 3), colour, dtype=np.uint8)] * 5
    return encode_video(frames, height=32, width=32, num_frames=5, frame_rate=8.0, output=OutputConfig(), metadata={})


OLD, NEW = make_video(40), make_video(200)


def publish(folder: Path, video: EncodedVideo, key: str) -> None:
    Publisher(folder, {"name": "demo"}).publish(RenderResult(REQUEST, "done", (), video), key)


def fail_at(point: int, after: bool, fail: Callable[[], None]) -> list[int]:
    """Make the `point`-th of CALLS fail in this process; returns the counter of the calls made."""
    counter = [0]

    def shim(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            counter[0] += 1
            mine = counter[0] == point
            if mine and not after:
                fail()
            result = real(*arguments, **options)
            if mine and after:
                fail()
            return result

        return call

    for module, name in CALLS:
        setattr(module, name, shim(getattr(module, name)))
    return counter


def raise_error(number: int) -> Callable[[], None]:
    def fail() -> None:
        raise OSError(number, os.strerror(number))

    return fail


FAILURES: dict[str, Callable[[], None]] = {
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "ENOSPC": raise_error(errno.ENOSPC),
    "EIO": raise_error(errno.EIO),
}


def publish_in_child(folder: Path, point: int, after: bool, fail: Callable[[], None]) -> int:
    """How the child ended: 0 published, 1 OSError, -9 killed."""
    child = os.fork()
    if child == 0:
        code = 2
        try:
            publisher = Publisher(folder, {"name": "demo"})
            fail_at(point, after, fail)
            publisher.publish(RenderResult(REQUEST, "done", (), NEW), "new")
            code = 0
        except OSError:
            code = 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def num_calls(folder: Path) -> int:
    """How many calls one publish makes, counted in a child."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            publisher = Publisher(folder, {"name": "demo"})
            counter = fail_at(-1, False, lambda: None)
            publisher.publish(RenderResult(REQUEST, "done", (), NEW), "new")
            os.write(writer, bytes([counter[0]]))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return os.read(reader, 1)[0]


@pytest.mark.parametrize("kind", FAILURES)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_cut_publish_leaves_the_old_clip_or_the_new_one(tmp_path: Path, kind: str, moment: str):
    # In an interpreter of its own: it forks, which a process that has run torch or Ray must not.
    command = [sys.executable, __file__, str(tmp_path), kind, moment]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr


def run_cases(root: Path, kind: str, moment: str) -> None:
    publish(root / "first", OLD, "old")  # reads the libraries' versions once, which opens files, too
    count = num_calls(root / "count")
    assert count == 10, "open, fsync, rename, open the folder, fsync it; for the mp4 and for the sidecar"
    for point in range(1, count + 1):
        folder = root / str(point)
        publish(folder, OLD, "old")
        code = publish_in_child(folder, point, moment == "after", FAILURES[kind])
        assert code == (-signal.SIGKILL if kind == "SIGKILL" else 1), (point, code)
        audit(folder, point)


def audit(folder: Path, point: int) -> None:
    mp4 = hashlib.sha256((folder / "clip.mp4").read_bytes()).hexdigest()
    assert mp4 in (OLD.mp4_sha256, NEW.mp4_sha256), (point, "a final name holds half a file")
    publisher = Publisher(folder, {"name": "demo"})
    assert not list((folder / ".ltx-dist" / "tmp").iterdir()), "what a crash left behind is gone"
    whole = publisher.is_published("clip", "new")
    assert not whole or mp4 == NEW.mp4_sha256
    publisher.publish(RenderResult(REQUEST, "done", (), NEW), "new")
    assert publisher.is_published("clip", "new")
    assert [verdict.problem for verdict in verify_folder(folder)] == [None]
    assert sorted(path.name for path in folder.iterdir()) == [".ltx-dist", "clip.json", "clip.mp4"]


if __name__ == "__main__":
    run_cases(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
