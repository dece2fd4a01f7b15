"""Renders to a folder that fills up, is read-only, or vanishes during the run: exit 74 with the path, then resumed.

    python benchmarks/chaos_storage.py

The first two need root, to mount a small file system. Otherwise they are left out, and the output says so.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forked import digests, exit_code, import_everything, render_command, run, save_checkpoint, start, write_prompts

NUM_CLIPS = 12
DISK = 8 << 20


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ltx-storage-") as folder:
        root = Path(folder)
        os.environ["LTX_DIST_CACHE"] = str(root / "cache")
        import_everything()
        checkpoint, prompts = save_checkpoint(root / "checkpoint"), write_prompts(root / "prompts.jsonl", NUM_CLIPS)
        log = root / "log"
        assert run(render_command(prompts, root / "expected", checkpoint), log) == 0, log.read_text()
        expected = digests(root / "expected")
        assert len(expected) == NUM_CLIPS
        for proof in (full, read_only, vanishing):
            out = root / proof.__name__
            print(f"{proof.__name__}: {proof(root, out, render_command(prompts, out, checkpoint), log)}", flush=True)
            if (root / proof.__name__).exists() and proof is vanishing:
                assert digests(out) == expected


def full(root: Path, out: Path, command: list[str], log: Path) -> str:
    """Leave 64 kB free at first and 16 kB more for each run, so that the disk fills up at another place each time."""
    with small_disk(out) as mounted:
        if not mounted:
            return "left out: only root can mount a file system"
        filler, stops = out / "filler", 0
        filler.write_bytes(bytes(DISK - (64 << 10)))
        while (code := run(command, log)) != 0:
            assert code == 74, (code, log.read_text())
            stops += 1
            said = re.search(r"(\S+): No space left on device \((\d+) bytes to write, (\d+) free\)", log.read_text())
            assert said and said[1].startswith(str(out)), log.read_text()
            for mp4 in out.glob("*.mp4"):
                assert mp4.stat().st_size > 0
            os.truncate(filler, max(0, filler.stat().st_size - (16 << 10)))
        assert stops, "the disk was never full"
        assert digests(out) == digests(root / "expected")
        return f"exit 74 {stops} times, naming path and bytes; then all {NUM_CLIPS} clips with equal hashes"


def read_only(root: Path, out: Path, command: list[str], log: Path) -> str:
    with small_disk(out) as mounted:
        if not mounted:
            return "left out: only root can mount a file system"
        subprocess.run(["mount", "-o", "remount,ro", out], check=True)
        assert run(command, log) == 74 and re.search(rf"{out}\S*: Read-only file system", log.read_text()), (
            log.read_text()
        )
        subprocess.run(["mount", "-o", "remount,rw", out], check=True)
        assert run(command, log) == 0 and digests(out) == digests(root / "expected")
        return "exit 74, naming the path; once it was writable, resumed with equal hashes"


def vanishing(root: Path, out: Path, command: list[str], log: Path) -> str:
    child = start(command, log)
    deadline = time.monotonic() + 120
    while len(list(out.glob("*.mp4"))) < 2:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.002)
    out.rename(root / "away")
    code = exit_code(child)
    assert code == 74 and re.search(rf"{out}\S*: No such file or directory", log.read_text()), (code, log.read_text())
    (root / "away").rename(out)
    before = len(list(out.glob("*.mp4")))
    assert 2 <= before < NUM_CLIPS
    assert run(command, log) == 0 and json.loads((out / "run.json").read_text())["skipped"] == before
    return f"exit 74, naming the path; once back, {NUM_CLIPS - before} of {NUM_CLIPS} rendered, with equal hashes"


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a file system of 8 MiB at `folder`. Yields False if that is not possible."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder], stderr=subprocess.DEVNULL, check=False
    )
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", folder], check=True)


if __name__ == "__main__":
    main()
