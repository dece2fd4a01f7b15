"""The guard reports once what is far too slow or larger than its device, and says nothing about what is usual."""

from __future__ import annotations

import pytest
from builders import GB, STAGES, WEIGHTS, D, predicted

from ltx_dist.estimates.costs import seconds
from ltx_dist.pipeline.work import Assignment, Completion, StageReport
from ltx_dist.pipeline.worker import Worker
from ltx_dist.planning.cliff import CliffGuard

KNOWN = Worker("cuda:0", STAGES, "cuda", device_name="NVIDIA GeForce RTX 4090", capacity=int(24e9))
UNKNOWN = Worker("cpu:0", STAGES, "cpu", threads=2)
COSTS = predicted(dict.fromkeys("abcdef", (1e12, 2e15, 5e13)), dict.fromkeys(WEIGHTS, GB))
USUAL = seconds(COSTS, "a", D, KNOWN)


def guard(worker: Worker) -> CliffGuard:
    return CliffGuard.of(COSTS, lambda: [worker])


def ended(worker: Worker, name: str, took: float, peak: float | None = None, error: str | None = None) -> Completion:
    report = StageReport(took, peak_bytes=None if peak is None else int(peak), error=error)
    return Completion(Assignment((name,), D, worker.worker_id), 0.0, took, report)


def test_what_takes_about_as_long_as_predicted_is_not_mentioned() -> None:
    assert 15 < USUAL < 25
    assert all(guard(KNOWN).look(ended(KNOWN, "a", USUAL * factor, 20e9)) is None for factor in (0.3, 1, 2, 4.9))


def test_a_stage_five_times_its_prediction_is_said_once_with_what_to_change() -> None:
    watch = guard(KNOWN)
    line = watch.look(ended(KNOWN, "a", 9000))
    assert line is not None and "denoise of a on cuda:0 took 9000 s" in line and "placement.memory_gb" in line
    assert watch.look(ended(KNOWN, "b", 9000)) is None


def test_more_memory_than_the_device_has_is_said() -> None:
    line = guard(KNOWN).look(ended(KNOWN, "a", USUAL, 29e9))
    assert line is not None and "29.0 GB of 24.0 GB" in line and "paged to the host" in line


@pytest.mark.parametrize("took", [100.0, 100_000.0])
def test_on_a_device_of_unknown_speed_the_fastest_clip_is_the_measure(took: float) -> None:
    watch = guard(UNKNOWN)
    assert watch.look(ended(UNKNOWN, "a", took)) is None
    assert watch.look(ended(UNKNOWN, "b", took * 4)) is None
    assert watch.look(ended(UNKNOWN, "c", took * 6)) is not None


def test_a_slow_run_does_not_become_its_own_measure() -> None:
    costs = predicted(dict(COSTS.work_of))
    watch = CliffGuard.of(costs, lambda: [KNOWN])
    for name in "abc":
        costs.observe(ended(KNOWN, name, 9000), KNOWN)
    assert watch.look(ended(KNOWN, "d", 9000)) is not None


def test_failed_and_short_stages_are_left_alone() -> None:
    watch = guard(UNKNOWN)
    assert watch.look(ended(UNKNOWN, "a", 9000, error="boom")) is None
    assert watch.look(ended(UNKNOWN, "b", 0.01)) is None
    assert watch.look(ended(UNKNOWN, "c", 4.0)) is None, "another program on the machine is enough for that"
