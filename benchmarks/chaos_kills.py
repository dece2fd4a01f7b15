"""Kills local runs with SIGKILL at uniformly random moments, and resumes each batch until it is done.

    python benchmarks/chaos_kills.py [--kills 300] [--clips 20] [--seed 0]

Every batch must end up like an uninterrupted one: the same frames, the same bytes, and nothing left over.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import shutil
import signal
import tempfile
import time
from pathlib import Path

from forked import digests, exit_code, import_everything, render_command, run, save_checkpoint, start, write_prompts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ltx-kills-") as folder:
        os.environ["LTX_DIST_CACHE"] = folder
        kill_runs(Path(folder), options.kills, options.clips, options.seed)


def is_over(child: int, within: float) -> bool:
    """Whether a child ends within this many seconds. Its exit code can still be collected."""
    descriptor = os.pidfd_open(child)
    try:
        return bool(select.select([descriptor], [], [], within)[0])
    finally:
        os.close(descriptor)


def kill_runs(root: Path, num_kills: int, num_clips: int, seed: int) -> None:
    import_everything()
    checkpoint, prompts = save_checkpoint(root / "checkpoint"), write_prompts(root / "prompts.jsonl", num_clips)
    log, rng = root / "log", random.Random(seed)

    def command(out: Path) -> list[str]:
        return render_command(prompts, out, checkpoint)

    for name in ("warm", "expected"):
        started = time.monotonic()
        assert run(command(root / name), log) == 0, log.read_text()
        seconds = time.monotonic() - started
    expected = digests(root / "expected")
    assert len(expected) == num_clips and digests(root / "warm") == expected

    killed = batches = 0
    out, resumes = root / "out", 0
    started = time.monotonic()
    while True:
        began, child = time.monotonic(), start(command(out), log)
        if killed < num_kills:
            if not is_over(child, within=rng.uniform(0, seconds)):
                os.kill(child, signal.SIGKILL)
            elif resumes == 0:
                seconds = time.monotonic() - began  # the first one may have been slowed by other work
        code = exit_code(child)
        assert code in (0, -signal.SIGKILL), (code, log.read_text())
        if code != 0:
            killed, resumes = killed + 1, resumes + 1
            continue
        assert digests(out) == expected, f"batch {batches} differs after {resumes} kills"
        assert not list((out / ".ltx-dist" / "tmp").iterdir()) and not list((out / ".ltx-dist" / "spool").iterdir())
        shutil.rmtree(out)
        batches, resumes = batches + 1, 0
        if killed >= num_kills:
            break
    print(
        f"{killed} SIGKILLs over {batches} batches of {num_clips} clips: every frames_sha256 and mp4_sha256 equal, "
        f"0 corrupt ({time.monotonic() - started:.0f} s; an undisturbed run takes {seconds:.1f} s)"
    )


if __name__ == "__main__":
    main()
