"""Warns if a device pages to host memory: it does not fail, but gets a hundred times slower.

An RTX 4090 took 2.5 hours for a clip of half a minute because the text encoder had stayed on it
(github.com/Lightricks/LTX-Video/issues/41).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ltx_dist.estimates.costs import PredictedCosts, device_kind, pass_seconds
from ltx_dist.estimates.device_rates import known_rate
from ltx_dist.pipeline.work import Completion
from ltx_dist.pipeline.worker import Worker

TOO_SLOW = 5.0
"""Multiple of its prediction that a stage may take: formulas are right within a factor of 2, paging costs 77."""

WORTH_SAYING = 5.0
"""Seconds below which a stage does not count as slow: another program on the machine may cause that."""

REMEDY = "end other programs on the device, or set placement.memory_gb below what is free on it"


@dataclass
class CliffGuard:
    """Checks every completion; warns once per worker and stage.

    predicted: the costs as known when the run began, so that a run that is slow from the start is not compared with
    itself. On a device without known costs, clips are compared with the fastest so far. workers: returns all
    workers that the run has had, as some join later.
    """

    predicted: PredictedCosts
    workers: Callable[[], Iterable[Worker]]
    _said: set[tuple[str, str, str]] = field(default_factory=set[tuple[str, str, str]])
    _fastest: dict[tuple[str, str], float] = field(default_factory=dict[tuple[str, str], float])

    @classmethod
    def of(cls, costs: PredictedCosts, workers: Callable[[], Iterable[Worker]]) -> CliffGuard:
        corrections = dict(costs.corrections)
        before = PredictedCosts(costs.recipe, costs.work_of, costs.stage_rates, costs.weight_bytes, corrections)
        return cls(before, workers)

    def look(self, completion: Completion) -> str | None:
        """One line with the problem and the remedy, or None."""
        assignment, report = completion.assignment, completion.report
        worker = next((worker for worker in self.workers() if worker.worker_id == assignment.worker_id), None)
        if worker is None or completion.error is not None or assignment.stage not in worker.stages:
            return None
        where = f"{assignment.stage} of {assignment.clips} on {worker.worker_id}"
        peak, capacity = report.peak_bytes, worker.capacity
        if peak is not None and capacity is not None and peak > capacity:
            return self._once(
                worker, assignment.stage, "memory",
                f"{where} used {peak / 1e9:.1f} GB of {capacity / 1e9:.1f} GB device memory; the rest is paged to the "
                f"host, which is very slow; {REMEDY}",
            )  # fmt: skip
        expected = self._expected(worker, completion)
        if report.seconds > max(WORTH_SAYING, TOO_SLOW * expected):
            return self._once(
                worker, assignment.stage, "time",
                f"{where} took {report.seconds:.0f} s, {report.seconds / expected:.0f} times as long as expected: the "
                f"device may page to the host's memory or be shared; {REMEDY}",
            )  # fmt: skip
        return None

    def _expected(self, worker: Worker, completion: Completion) -> float:
        stage, kind = completion.assignment.stage, device_kind(worker)
        expected = pass_seconds(self.predicted, completion.assignment, worker)
        in_table = worker.device == "cuda" and known_rate(worker.device_name) is not None
        if in_table or (kind, stage) in self.predicted.corrections or expected <= 0:
            return max(expected, 1e-9)
        ratio = completion.report.seconds / expected
        self._fastest[kind, stage] = min(ratio, self._fastest.get((kind, stage), ratio))
        return max(expected * self._fastest[kind, stage], 1e-9)

    def _once(self, worker: Worker, stage: str, what: str, line: str) -> str | None:
        key = (worker.worker_id, stage, what)
        if key in self._said:
            return None
        self._said.add(key)
        return line
