"""Tests the scheduler, the failure policy and the batch loop without processes: random failures, and a large batch.

    python benchmarks/chaos_model.py [model scale]

`model` runs 1,000 examples, of 200 steps each, of the state machine in tests/engine/test_failures.py, in one process
per core. `scale` runs 10,000 clips on 64 workers on a virtual clock, and measures the wall-clock time of each tick.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from proofs import run_proofs

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

EXAMPLES, STEPS = 1000, 200
CLIPS, WORKERS = 10_000, 64
MAX_GROWTH_BYTES = 50e6
MAX_TICK_SECONDS = 0.020


def model() -> str:
    """Run the state machine in one process per core."""
    processes = os.cpu_count() or 1
    share = -(-EXAMPLES // processes)
    with ProcessPoolExecutor(processes) as pool:
        list(pool.map(run_machine, range(processes), [share] * processes))
    return f"{share * processes} examples of {STEPS} steps: no clip lost, one terminal result each"


def run_machine(seed: int, examples: int) -> None:
    """Run the state machine with a seed, so that each process draws other examples. Raises a counterexample's error."""
    from engine.test_failures import AnythingAtAnyTime
    from hypothesis import HealthCheck, settings
    from hypothesis import seed as seeded
    from hypothesis.stateful import run_state_machine_as_test

    class Seeded(AnythingAtAnyTime):
        pass

    run_state_machine_as_test(
        seeded(seed)(Seeded),
        settings=settings(max_examples=examples, stateful_step_count=STEPS, deadline=None, database=None,
                          suppress_health_check=list[Any](HealthCheck)),
    )  # fmt: skip


def scale() -> str:
    """Run the batch timed, then once more with tracemalloc, which slows down every allocation."""
    from engine.test_failures import chaos

    results, ticks, _ = chaos(CLIPS, WORKERS, traced=False)
    _, _, stayed = chaos(CLIPS, WORKERS)
    p99 = statistics.quantiles(ticks, n=100)[98]
    counts = Counter(result.status for result in results.values())
    assert counts.total() == CLIPS
    assert stayed <= MAX_GROWTH_BYTES and p99 <= MAX_TICK_SECONDS, (stayed, p99)
    return (
        f"{CLIPS} clips on {WORKERS} workers, 1 % crash, 0.1 % hang: {counts['done']} done, {counts['failed']} failed; "
        f"the driver keeps {stayed / 1e6:.1f} MB; a tick takes {statistics.median(ticks) * 1e3:.2f} ms (median) and "
        f"{p99 * 1e3:.2f} ms (99th percentile) of wall-clock time"
    )


if __name__ == "__main__":
    run_proofs({"model": model, "scale": scale})
