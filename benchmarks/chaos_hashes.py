"""Proves that clips have equal hashes however they are rendered, and that a folder in use refuses a second run.

python benchmarks/chaos_hashes.py [--without-ray]
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from forked import (
    ROOT,
    digests,
    exit_code,
    import_everything,
    render_command,
    run,
    save_checkpoint,
    start,
    write_prompts,
)

NUM_CLIPS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--without-ray", action="store_true")
    with_ray = not parser.parse_args().without_ray
    with tempfile.TemporaryDirectory(prefix="ltx-hashes-") as folder:
        root = Path(folder)
        os.environ["LTX_DIST_CACHE"] = str(root / "cache")
        import_everything()
        equal_however_rendered(root, with_ray)
        equal_under_load()
        second_run(root)
        rotten(root)


def equal_however_rendered(root: Path, with_ray: bool) -> None:
    checkpoint, prompts, log = save_checkpoint(root / "checkpoint"), root / "prompts.jsonl", root / "log"
    write_prompts(prompts, NUM_CLIPS)
    shuffled = root / "shuffled.jsonl"
    lines = prompts.read_text().splitlines(keepends=True)
    random.Random(1).shuffle(lines)
    shuffled.write_text("".join(lines))

    def command(name: str, source: Path = prompts, *more: str) -> list[str]:
        return render_command(source, root / name, checkpoint, *more)

    assert run(command("local"), log) == 0, log.read_text()
    assert run(command("shuffled", shuffled), log) == 0, log.read_text()
    child = start(command("resumed"), log)
    while len(list((root / "resumed").glob("*.mp4"))) < 3:
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    assert exit_code(child) == -signal.SIGKILL and run(command("resumed", shuffled), log) == 0, log.read_text()
    names = ["local", "shuffled", "resumed"]
    if with_ray:
        names += over_ray(command, prompts, shuffled, root)
    expected = digests(root / "local")
    assert len(expected) == NUM_CLIPS and all(digests(root / name) == expected for name in names)
    print(f"{NUM_CLIPS} clips, {', '.join(names)}: equal hashes", flush=True)


def over_ray(command: Callable[..., list[str]], prompts: Path, shuffled: Path, root: Path) -> list[str]:
    """Render through Ray in three ways, and return the names of the folders.

    Each run starts a Ray of its own, as a user's would. The last is killed, and resumed with fewer workers.
    """

    def begin(name: str, source: Path, num_workers: int) -> subprocess.Popen[str]:
        layout = "shared" if num_workers == 1 else "replicated"
        settings = [f"placement.devices={num_workers}", f"placement.layout={layout}", "cache.embeddings=null"]
        words = [*command(name, source, "--executor", "ray"), *(w for s in settings for w in ("--set", s))]
        return subprocess.Popen(
            [sys.executable, "-m", "ltx_dist.cli", *words], cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def finish(process: subprocess.Popen[str]) -> None:
        said, _ = process.communicate()
        assert process.returncode == 0, said

    finish(begin("ray-1", prompts, 1))
    finish(begin("ray-2-shuffled", shuffled, 2))
    process = begin("ray-resumed", prompts, 2)
    while len(list((root / "ray-resumed").glob("*.mp4"))) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    process.kill()
    process.communicate()
    finish(begin("ray-resumed", shuffled, 1))
    return ["ray-1", "ray-2-shuffled", "ray-resumed"]


def equal_under_load() -> None:
    from ltx_dist.media.mp4 import encode_video
    from ltx_dist.pipeline.storage import Mp4Settings

    frames = np.random.default_rng(0).integers(0, 255, (17, 128, 192, 3), dtype=np.uint8)
    spin = [sys.executable, "-c", "while True: pass"]
    load = [subprocess.Popen(spin) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        files = {
            encode_video(
                frames, height=128, width=192, num_frames=17, frame_rate=24.0, output=Mp4Settings(), metadata={}
            ).mp4_sha256
            for _ in range(20)
        }
    finally:
        for process in load:
            process.kill()
            process.wait()
    assert len(files) == 1, files
    print(f"the mp4 of equal frames, 20 times beside {len(load)} busy processes: 1 hash", flush=True)


def second_run(root: Path) -> None:
    """Start a second run on a folder in use, in an interpreter of its own, as a user would."""
    from ltx_dist.store.lock import folder_lock

    command = render_command(root / "prompts.jsonl", root / "local", root / "checkpoint")
    with folder_lock(root / "local"):
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "ltx_dist.cli", *command], cwd=ROOT, capture_output=True, text=True
        )
        seconds = time.monotonic() - started
    assert done.returncode == 2 and f"process id {os.getpid()} on " in done.stderr, done.stderr
    assert seconds <= 2 or os.getloadavg()[0] > 2, seconds
    print(f"a second run: exit 2 after {seconds:.1f} s: {done.stderr.strip()}", flush=True)


def rotten(root: Path) -> None:
    """Damage a third of the clips, each in one of three ways: all are found, and only they are rendered again."""
    from ltx_dist.report.verify import verify_folder

    out, rng = root / "local", random.Random(2)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.mp4")}
    expected, chosen = digests(out), rng.sample(sorted(before), NUM_CLIPS // 3)
    for index, path in enumerate(chosen):
        content = bytearray(path.read_bytes())
        if index % 3 == 0:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        elif index % 3 == 1:
            del content[rng.randrange(len(content)) :]
        else:
            content[:] = bytes(len(content))
        path.write_bytes(content)
    found = {verdict.name for verdict in verify_folder(out) if verdict.rerun == "renders"}
    assert found == {path.stem for path in chosen}, found
    log = root / "log"
    assert run(render_command(root / "prompts.jsonl", out, root / "checkpoint"), log) == 0, log.read_text()
    assert digests(out) == expected
    again = {path for path in before if path.stat().st_mtime_ns != before[path]} - set(chosen)
    assert not again, again
    print(
        f"flipped, cut and zeroed: {len(found)} of {len(chosen)} found, and only they were rendered again", flush=True
    )


if __name__ == "__main__":
    main()
