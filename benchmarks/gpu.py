"""Measures what only a GPU can show, in the few minutes that one may be available: probes, the most important first.

    python benchmarks/gpu.py [--command 1|2|3] [--only NAME]... [--scale full|tiny] [--budget-s 540] [--out gpu.jsonl]
    python benchmarks/gpu.py --table gpu.jsonl

Each probe runs in its own process with its own time limit, and appends a JSON line as soon as it has measured a value.
So a probe that fails, hangs or is killed does not affect the others, and what it has measured is kept. A probe that no
longer fits in the budget is skipped, and a line says so. Weights are drawn at random on the card, without a download.
`--scale tiny` runs every probe on a CPU, to test this script. Without `--command`, all probes run in their order.

  1  correctness and facts: versions, convolutions, parity, memory as the card sees it, real shortages, copies
  2  what a user gets: whole batches under caps of 24 to 6 GB, also with 5 % less than planned; diffusers' offloading
  3  13B streamed and in 8 bits; shared passes; reading weights

The aims were written down before any run: a row with `ok` has its `aim` beside it. Overall, they are parity everywhere;
reserved memory between 0.8 and 1.0 of the plan at every cap; no fallback in command 2 if all planned memory is there;
streamed 13B at most 1.15 times the seconds of resident; equal digests of decoded frames under all caps that work.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from gpu_probes.probe import PROBES, Probe, append

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--command", type=int, choices=(1, 2, 3))
    parser.add_argument("--only", action="append", choices=[probe.name for probe in PROBES], default=[])
    parser.add_argument("--scale", choices=("full", "tiny"), default="full")
    parser.add_argument("--budget-s", type=float, default=540.0)
    parser.add_argument("--out", type=Path, default=Path("gpu.jsonl"))
    parser.add_argument("--fork", action="store_true", help="import the libraries only once; for a CPU only")
    parser.add_argument("--table", type=Path, help="only print the results of a run as tables")
    arguments = parser.parse_args()
    if arguments.table is not None:
        print(tables([json.loads(line) for line in arguments.table.read_text().splitlines()]))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the running probe is ended, too
    probes = [
        probe
        for probe in PROBES
        if arguments.command in (None, probe.command) and (not arguments.only or probe.name in arguments.only)
    ]
    run_all(probes, arguments.scale, arguments.budget_s, arguments.out, arguments.fork)


def run_all(probes: Sequence[Probe], scale: str, budget: float, out: Path, fork: bool = False) -> None:
    """Run the probes. Prints one line for each, and appends its rows to `out`."""
    if fork:
        from gpu_probes.forked import import_libraries

        import_libraries()
    out.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + budget
    for probe in probes:
        left = deadline - time.monotonic()
        if left < (5.0 if scale == "tiny" else probe.seconds):
            append(
                out,
                {"probe": probe.name, "ended": "skipped", "error": f"{max(left, 0.0):.0f} s of the budget are left"},
            )
            print(f"{probe.name:20} skipped: {left:.0f} s are left", flush=True)
            continue
        ending = run_one(probe, scale, min(probe.limit(scale), left), out, fork)
        append(out, {"probe": probe.name, **ending})
        print(f"{probe.name:20} {ending['ended']} in {ending['seconds']} s {ending.get('error', '')}", flush=True)


def run_one(probe: Probe, scale: str, limit: float, out: Path, fork: bool = False) -> dict[str, Any]:
    """Run a probe, and return how it ended: done, failed (with its last output) or out of time. No process is left."""
    started = time.monotonic()
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        if fork:
            from gpu_probes.forked import run_forked

            code = run_forked(probe, scale, limit, out.resolve(), said)
        else:
            code = run_apart(probe, scale, limit, out.resolve(), said)
        said.seek(0)
        lines = said.read().strip().splitlines() or [""]
    seconds = round(time.monotonic() - started, 1)
    if code is None:
        return {"ended": "out of time", "seconds": seconds, "error": lines[-1][:300]}
    if code != 0:
        return {"ended": "failed", "seconds": seconds, "code": code, "error": lines[-1][:300], "log": lines[-15:]}
    return {"ended": "done", "seconds": seconds}


def run_apart(probe: Probe, scale: str, limit: float, out: Path, said: IO[str]) -> int | None:
    """The exit code of the probe in an interpreter of its own; None if it ran out of time."""
    command = [sys.executable, "-m", "gpu_probes.probe", probe.name, scale, str(out)]
    paths = [str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), **probe.environment}
    process = subprocess.Popen(command, stdout=said, stderr=said, env=environment, start_new_session=True)
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """One Markdown table for each probe, with columns in the order of their first appearance."""
    parts: list[str] = []
    for name in dict.fromkeys(row["probe"] for row in rows):
        measured = [row for row in rows if row["probe"] == name and "case" in row]
        endings = [row for row in rows if row["probe"] == name and "ended" in row]
        ending = ", ".join(f"{row['ended']} {row.get('error', '')}".strip() for row in endings) or "killed"
        parts.append(f"### {name}: {ending}")
        if measured:
            columns = list(dict.fromkeys(key for row in measured for key in row if key != "probe"))
            parts.append("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
            parts[-1] += "".join(f"\n| {' | '.join(_cell(row.get(key)) for key in columns)} |" for row in measured)
    return "\n\n".join(parts)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if isinstance(value, list):
        return ", ".join(map(_cell, value)).replace("|", "/")
    return (f"{value:.3g}" if isinstance(value, float) else str(value)).replace("|", "/")


if __name__ == "__main__":
    main()
