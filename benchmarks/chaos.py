"""What the promises rest on, proved by breaking things: each proof prints its figure, and the first lie ends it.

    python benchmarks/chaos.py [NAME...]     all of them in under 20 minutes on 2 cores; or those named

Short forms of most run in the tests. Only processes that a proof started are ever killed, by their id.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent / "tests"
HOSTILE = ["tests/inputs", "tests/output/test_links.py", "tests/checkpoints/test_checkpoint.py"]
FUZZ_EXAMPLES = 3400
"""Of each of three fuzz tests: together over 10,000 prompt files."""

PROOFS: dict[str, list[list[str]]] = {
    "publish": [[str(TESTS / "output" / "test_fail_points.py")]],
    "kills": [[str(HERE / "chaos_kills.py"), "--kills", "150", "--seed", str(seed)] for seed in (0, 1)],
    "storage": [[str(HERE / "chaos_storage.py")]],
    "hashes": [[str(HERE / "chaos_hashes.py")]],
    "hostile": [["-m", "pytest", "-q", "--no-header", "--durations=0", "--durations-min=60", *HOSTILE]],
    "ray": [[str(HERE / "chaos_ray.py")]],
}
"""By name, commands that run at the same time."""


def main() -> None:
    names = sys.argv[1:] or [
        name for name, commands in PROOFS.items() if Path(commands[0][0]).exists() or name == "hostile"
    ]
    if unknown := set(names) - set(PROOFS):
        sys.exit(f"no such proof: {', '.join(sorted(unknown))}; there are {', '.join(PROOFS)}")
    print(f"{os.cpu_count()} cores", flush=True)
    started = time.monotonic()
    for name in names:
        prove(name, PROOFS[name])
    print(f"all proved in {(time.monotonic() - started) / 60:.1f} minutes")


def prove(name: str, commands: list[list[str]]) -> None:
    started = time.monotonic()
    environment = os.environ | {"PYTHONPATH": str(HERE.parent), "FUZZ_EXAMPLES": str(FUZZ_EXAMPLES)}
    processes = [
        subprocess.Popen(
            [sys.executable, *command], cwd=HERE.parent, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for command in commands
    ]  # fmt: skip
    outputs = [process.communicate()[0].strip() for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        for line in output.splitlines() if process.returncode else output.splitlines()[-20:]:
            print(f"{name}: {line}", flush=True)
        if process.returncode:
            sys.exit(f"{name}: NOT PROVED, exit code {process.returncode}")
    print(f"{name}: proved in {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
