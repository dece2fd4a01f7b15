"""Times 24 demo clips on this machine's CPU cores: ours through Ray, a plain diffusers loop, independent processes.

    python benchmarks/cpu_batch.py [--clips 24] [--rounds 3]

The three take turns in one run of this script, and all write mp4s:
  ours         `ltx-dist render --executor ray`, replicated, with one single-threaded worker per core
  loop         one process with a `for` loop over LTXPipeline, and as many threads as torch chooses
  independent  one single-threaded process per core, with the clips divided among them: the most a machine can do
steady: from the start of work on the first clip to the end of the last clip. (For ours, that is the end of the last
decode and its mp4, without the 30 ms or so for checking that file and moving it into place.)
whole: including imports, loading and Ray.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from text_to_video import write_demo_prompts

HERE = Path(__file__).parent
CORES = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Measured:
    """Seconds of one way to render the batch."""

    steady: float
    whole: float


def run_ours(prompts: Path, out: Path) -> Measured:
    command = [
        sys.executable, "-m", "ltx_dist.cli", "render", str(prompts), "-o", str(out), "--executor", "ray",
        "--set", "cache.embeddings=null",
        "--set", "placement.layout=replicated", "--set", f"placement.devices={CORES}",
        "--set", "placement.threads=1", "--set", "placement.device=cpu",
    ]  # fmt: skip
    started = time.time()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    whole = time.time() - started
    events = json.loads((out / "run.json").read_text())["events"]
    return Measured(max(e["finished"] for e in events) - min(e["started"] for e in events), whole)


def run_bare(prompts: Path, out: Path, processes: int, threads: int | None) -> Measured:
    out.mkdir()
    extra = ["--threads", str(threads)] if threads else []
    started = time.time()
    running = [
        subprocess.Popen(
            [
                sys.executable,
                str(HERE / "bare_diffusers.py"),
                str(prompts),
                str(out),
                "--part",
                f"{i}/{processes}",
                *extra,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for i in range(processes)
    ]
    reports = [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]
    whole = time.time() - started
    return Measured(max(r["ended"] for r in reports) - min(r["started"] for r in reports), whole)


def compare(clips: int, rounds: int) -> None:
    """Run all three in turns, and print their seconds and speeds."""
    measured: dict[str, list[Measured]] = {"ours": [], "loop": [], "independent": []}
    with tempfile.TemporaryDirectory() as temporary:
        prompts = write_demo_prompts(Path(temporary), clips)
        for round_ in range(rounds):
            folder = Path(temporary) / str(round_)
            folder.mkdir()
            measured["ours"].append(run_ours(prompts, folder / "ours"))
            measured["loop"].append(run_bare(prompts, folder / "loop", 1, None))
            measured["independent"].append(run_bare(prompts, folder / "independent", CORES, 1))
            last = {name: f"{runs[-1].steady:.1f} s ({runs[-1].whole:.1f})" for name, runs in measured.items()}
            print(f"round {round_ + 1}, steady (whole):", last, flush=True)
    print(f"\n{clips} demo clips on {CORES} cores, medians of {rounds} rounds; speed relative to the loop")
    for kind in ("steady", "whole"):
        seconds = {name: statistics.median(getattr(run, kind) for run in runs) for name, runs in measured.items()}
        for name, value in seconds.items():
            print(f"  {kind:<7} {name:<12} {value:6.1f} s  {seconds['loop'] / value:5.2f}x")
        print(f"  {kind:<7} ours against independent processes: {seconds['independent'] / seconds['ours']:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    compare(arguments.clips, arguments.rounds)


if __name__ == "__main__":
    main()
