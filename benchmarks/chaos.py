"""Proves the promises by breaking things. Each proof prints its figures or, if it fails, all of its output.

    python benchmarks/chaos.py [NAME...]     all proofs, in under 30 minutes on 2 cores, or only those named

`renamed` renames output folders during a run, and `hostile-folders` runs every command on folders with foreign files.
`cluster` stops the driver for 100 s, and kills the GCS or raylets in the middle of a run. (To run only one of its
parts, name it: `python benchmarks/chaos_cluster.py stopped`.) The tests include short forms of most proofs. Only
processes that a proof started are ever killed, by their id.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent / "tests"
HOSTILE = [
    "tests/inputs", "tests/store/test_links.py", "tests/store/test_foreign_files.py", "tests/run/test_moved_folder.py",
    "tests/report/test_crafted_records.py", "tests/checkpoints/test_checkpoint.py",
]  # fmt: skip
"""Tests of bad inputs, of output folders with foreign or crafted files, and of folders renamed during a run."""

FUZZ_EXAMPLES = 3400
"""Number of examples for each of three fuzz tests: over 10,000 prompt files in total."""

Proofs = dict[str, Sequence[str]]
"""Command lines by name."""

ALONE: Proofs = {
    "hashes": [str(HERE / "chaos_hashes.py")],
    "scale": [str(HERE / "chaos_model.py"), "scale"],
    "ray-kills": [str(HERE / "chaos_ray.py"), "kills"],
}
"""Proofs that need a quiet machine: on shared cores, workers that are killed every 2 s would do nothing but start."""

SIDE_BY_SIDE: Proofs = {
    "ray": [str(HERE / "chaos_ray.py"), "poison", "bad-worker", "roles"],
    "kills-0": [str(HERE / "chaos_kills.py"), "--kills", "150", "--seed", "0"],
    "kills-1": [str(HERE / "chaos_kills.py"), "--kills", "150", "--seed", "1"],
    "model": [str(HERE / "chaos_model.py"), "model"],
    "hostile": ["-m", "pytest", "-q", "--no-header", "--durations=0", "--durations-min=60", *HOSTILE],
    "ray-ends": [str(HERE / "chaos_ray.py"), "node", "driver", "hang"],
    "stop": [str(HERE / "chaos_stop.py")],
    "renamed": [str(HERE / "chaos_folders.py"), "renamed"],
    "hostile-folders": [str(HERE / "chaos_folders.py"), "hostile"],
    "nodes": [str(HERE / "chaos_nodes.py")],
    "cluster": [str(HERE / "chaos_cluster.py")],
    "storage": [str(HERE / "chaos_storage.py")],
    "publish": [str(TESTS / "store" / "test_fail_points.py")],
}
"""Proofs that run two at a time, in this order: the longest waits for workers to start, while those without Ray run."""

PRINTING = threading.Lock()


def main() -> None:
    proofs = ALONE | SIDE_BY_SIDE
    names = sys.argv[1:] or list(proofs)
    if unknown := set(names) - set(proofs):
        sys.exit(f"no such proof: {', '.join(sorted(unknown))}; the proofs are {', '.join(proofs)}")
    print(f"{os.cpu_count()} cores", flush=True)
    started = time.monotonic()
    held = {name: prove(name, ALONE[name]) for name in names if name in ALONE}
    with ThreadPoolExecutor(2) as lanes:
        beside = {name: lanes.submit(prove, name, SIDE_BY_SIDE[name]) for name in names if name in SIDE_BY_SIDE}
    held |= {name: future.result() for name, future in beside.items()}
    minutes = (time.monotonic() - started) / 60
    if failed := [name for name, is_held in held.items() if not is_held]:
        sys.exit(f"NOT PROVED: {', '.join(failed)}; {minutes:.1f} minutes")
    print(f"all proved in {minutes:.1f} minutes")


def prove(name: str, command: Sequence[str]) -> bool:
    started = time.monotonic()
    environment = os.environ | {"PYTHONPATH": str(HERE.parent), "FUZZ_EXAMPLES": str(FUZZ_EXAMPLES)}
    process = subprocess.Popen(
        [sys.executable, *command], cwd=HERE.parent, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    stdout, stderr = process.communicate()
    lines = stdout.strip().splitlines()
    with PRINTING:
        for line in [*lines, *stderr.splitlines()] if process.returncode else lines[-20:]:  # Ray reports each death
            print(f"{name}: {line}", flush=True)
        end = f"NOT PROVED, exit code {process.returncode}," if process.returncode else "proved"
        print(f"{name}: {end} in {time.monotonic() - started:.0f} s", flush=True)
    return not process.returncode


if __name__ == "__main__":
    main()
