"""A publish is interrupted at every call to the file system, by a kill, a full disk and a broken one.

Each case runs in a forked child that fails before or after one call; then the next run opens the folder. Run as a
program, it prints the number of interruptions, and fails at the first that left anything wrong.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltx_dist.media.mp4 import encode_video
from ltx_dist.pipeline.payloads import EncodedVideo
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import Mp4Settings
from ltx_dist.pipeline.work import RenderResult
from ltx_dist.report.verify import verify_folder
from ltx_dist.store.publisher import Publisher

REQUEST = RenderRequest("clip", "p", "", 32, 32, 5, 8.0, 2, 1.0, 0.0, 1, 0.0, None, 32)
CALLS = [(io, "open"), *((os, name) for name in ("open", "write", "fsync", "link", "replace", "unlink", "close"))]
"""Everything that reading and writing a clip is made of."""

MEMORY = Path("/dev/shm")
"""A folder where fsync costs nothing: only that it is called matters here."""


def make_video(colour: int, key: str) -> EncodedVideo:
    frames = [np.full((32, 32, 3), colour, dtype=np.uint8)] * 5
    return encode_video(
        frames, height=32, width=32, num_frames=5, frame_rate=8.0, output=Mp4Settings(), metadata={},
        facts={"render_key": key},
    )  # fmt: skip


OLD, NEW = make_video(40, "old"), make_video(200, "new")


@dataclass(frozen=True)
class Scenario:
    """Something durable to do in a folder, and what must be true after it was interrupted and done again."""

    prepare: Callable[[Path], None]
    act: Callable[[Path], None]
    audit: Callable[[Path, bool], None]


def publish(folder: Path, video: EncodedVideo, key: str) -> bool:
    return Publisher(folder, {"name": "demo"}).publish(RenderResult(REQUEST, "done", (), video), key)


def audit_clip(folder: Path, finished: bool) -> None:
    mp4 = folder / "clip.mp4"
    there = hashlib.sha256(mp4.read_bytes()).hexdigest() if mp4.exists() else None
    assert there in (None, OLD.mp4_sha256, NEW.mp4_sha256), "a final name holds half a file"
    publisher = Publisher(folder, {"name": "demo"})
    assert not list((folder / ".ltx-dist" / "tmp").iterdir()), "what a crash left behind is gone"
    whole = publisher.is_published(REQUEST, "new")
    assert whole == (there == NEW.mp4_sha256), "the mp4 is the truth, with or without its sidecar"
    assert whole or not finished, "a publish that returned is durable"
    again = publisher.publish(RenderResult(REQUEST, "done", (), NEW), "new")
    assert again != whole, "a second attempt at a published clip is dropped"
    assert publisher.is_published(REQUEST, "new")
    assert [verdict.problem for verdict in verify_folder(folder)] == [None]
    assert sorted(path.name for path in folder.iterdir()) == [".ltx-dist", "clip.json", "clip.mp4"], "no duplicate"


def spool_scenario() -> Scenario:
    import torch

    from ltx_dist.pipeline.payloads import Latents
    from ltx_dist.store.artifacts import ArtifactStore

    def latents(value: float) -> Latents:
        return Latents(torch.full((1, 4, 2, 2, 2), value), torch.zeros(16, dtype=torch.uint8), "float32")

    def spool(folder: Path) -> ArtifactStore:
        (folder / "tmp").mkdir(parents=True, exist_ok=True)
        return ArtifactStore(folder / "spool", folder / "tmp", 10**6)

    def audit(folder: Path, finished: bool) -> None:
        opened = spool(folder)
        assert not (opened.holds("clip", "old") and opened.holds("clip", "new"))
        assert opened.holds("clip", "new") or not finished
        for key, value in (("old", 1.0), ("new", 2.0)):
            if opened.holds("clip", key):
                loaded = opened.load("clip", key)
                assert isinstance(loaded, Latents) and torch.equal(loaded.latents, latents(value).latents)
        opened.keep("clip", "new", latents(2.0))
        assert opened.holds("clip", "new") and len(list((folder / "spool").iterdir())) == 1

    torch.set_num_threads(1)
    return Scenario(
        lambda folder: spool(folder).keep("clip", "old", latents(1.0)),
        lambda folder: spool(folder).keep("clip", "new", latents(2.0)),
        audit,
    )


SCENARIOS: dict[str, Callable[[], Scenario]] = {
    "first": lambda: Scenario(lambda folder: None, lambda folder: assert_true(publish(folder, NEW, "new")), audit_clip),
    "over another": lambda: Scenario(
        lambda folder: assert_true(publish(folder, OLD, "old")),
        lambda folder: assert_true(publish(folder, NEW, "new")),
        audit_clip,
    ),
    "spool": spool_scenario,
}


def assert_true(value: bool) -> None:
    assert value


@contextmanager
def failing(point: int, after: bool, fail: Callable[[], None]) -> Iterator[list[str]]:
    """Make the `point`-th of CALLS fail in this process. Returns the names of the calls that were made."""
    made: list[str] = []

    def shim(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            made.append(name)
            mine = len(made) == point
            if mine and not after:
                fail()
            try:
                return real(*arguments, **options)
            finally:
                if mine and after:
                    fail()

        return call

    reals = [(module, name, getattr(module, name)) for module, name in CALLS]
    for module, name, real in reals:
        setattr(module, name, shim(f"{module.__name__}.{name}", real))
    try:
        yield made
    finally:
        for module, name, real in reals:
            setattr(module, name, real)


def raise_error(number: int) -> Callable[[], None]:
    def fail() -> None:
        raise OSError(number, os.strerror(number))

    return fail


FAILURES: dict[str, Callable[[], None]] = {
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "ENOSPC": raise_error(errno.ENOSPC),
    "EIO": raise_error(errno.EIO),
}


def in_child(act: Callable[[], None]) -> int:
    """How the child ended: 0 done, 1 OSError, -9 killed."""
    child = os.fork()
    if child == 0:
        code = 2
        try:
            act()
            code = 0
        except OSError:
            code = 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def cut(scenario: Scenario, folder: Path, point: int, after: bool, kind: str) -> None:
    def act() -> None:
        with failing(point, after, FAILURES[kind]):
            scenario.act(folder)

    scenario.prepare(folder)
    code = in_child(act)
    assert code == -signal.SIGKILL if kind == "SIGKILL" else code in (0, 1), (point, after, code)
    scenario.audit(folder, code == 0)


def cut_everywhere(root: Path, name: str, kind: str) -> int:
    """Interrupt a scenario before and after each of its calls. Returns the number of interruptions."""
    scenario = SCENARIOS[name]()
    scenario.prepare(root / "count")
    scenario.act(root / "warm")  # reads the libraries' versions once, which opens files, too
    with failing(-1, False, lambda: None) as calls:
        scenario.act(root / "count")
    assert {"os.open", "os.write", "os.fsync", "os.unlink", "os.close"} <= set(calls), calls
    assert ("os.link" in calls) == (name != "spool") and ("os.replace" in calls)
    for point in range(1, len(calls) + 1):
        for after in (False, True):
            cut(scenario, root / f"{point}-{after}", point, after, kind)
    return 2 * len(calls)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_cut_write_leaves_the_old_or_the_new_and_nothing_else(name: str):
    # This runs in an interpreter of its own, because it forks, which a process that has run torch or Ray must not do.
    command = [sys.executable, __file__, name]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


if __name__ == "__main__":
    for name in sys.argv[1:2] or SCENARIOS:
        for kind in FAILURES:
            with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
                print(
                    f"{name}, {kind}: {cut_everywhere(Path(folder), name, kind)} cuts, 0 bad, 0 duplicate", flush=True
                )
