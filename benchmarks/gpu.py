"""Measures what only a GPU can show, when one is available for minutes: independent probes, the most important first.

    python benchmarks/gpu.py [--command 1|2|3] [--only NAME]... [--scale full|tiny] [--budget-s 540] [--out gpu.jsonl]
    python benchmarks/gpu.py --table gpu.jsonl

Each probe runs in a process of its own with a time limit of its own, and appends one JSON line for each thing it
measures, at once: what fails, hangs or is killed costs no other probe anything, and what was measured stays. A probe
that no longer fits in the budget is skipped, and a line says so. Weights are drawn on the card; nothing is downloaded.
`--scale tiny` runs every probe on a CPU, to test this file. Without `--command` all are run, in their order.

  1  correctness and facts: versions, convolutions, parity, memory as the card sees it, real shortages, copies
  2  what a user gets: whole batches under caps of 24 to 6 GB, 5 % below the plan, and diffusers' own offloading
  3  13B: streamed, in 8 bits; shared passes; reading weights

Accepted is what was written down before the run: a row with `ok` has its `aim` beside it. In all: parity everywhere;
reserved <= planned and >= 0.8 planned at every cap; no fallback in command 2; streamed 13B <= 1.15 of resident;
equal digests of decoded frames under all caps that work.
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
    parser.add_argument("--fork", action="store_true", help="import the libraries once; only for a CPU")
    parser.add_argument("--table", type=Path, help="print what a run has written as tables, and do nothing else")
    arguments = parser.parse_args()
    if arguments.table is not None:
        print(tables([json.loads(line) for line in arguments.table.read_text().splitlines()]))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the probe under way is ended, too
    probes = [
        probe
        for probe in PROBES
        if arguments.command in (None, probe.command) and (not arguments.only or probe.name in arguments.only)
    ]
    run_all(probes, arguments.scale, arguments.budget_s, arguments.out, arguments.fork)


def run_all(probes: Sequence[Probe], scale: str, budget: float, out: Path, fork: bool = False) -> None:
    """One line on the console for each probe; all of its rows are in `out`."""
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
    """How the probe ended: done, failed with its last line of output, or out of time. No process of it is left."""
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
    """The exit code of the probe in an interpreter of its own; None where it was out of time."""
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
    """Markdown: a table for each probe, its columns in the order in which they first appear."""
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
