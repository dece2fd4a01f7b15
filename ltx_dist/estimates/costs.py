"""Predicts the seconds of each stage and each swap: work divided by a device's rate, corrected by measurements.

Seconds only rank layouts and orders; nothing waits by them, so a wrong rate costs time and never a clip.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ltx_dist.estimates.device_rates import CPU_THREAD, THREADS_EXPONENT, UNKNOWN_GPU, DeviceRate, known_rate
from ltx_dist.pipeline.recipe import Recipe
from ltx_dist.pipeline.work import Assignment, Completion
from ltx_dist.pipeline.worker import Worker

Work = tuple[float, ...]
"""The work of each device stage of one clip, in the recipe's order: operations, or seconds on a device of rate 1."""


@dataclass(frozen=True, slots=True)
class StageRate:
    """How fast a stage runs on a device of known figures.

    efficiency: share of the device's peak that its model reaches. operations_per_byte: set where the stage reads all of
        its weights for little work, so that the device's memory may be what limits it.
    """

    efficiency: float
    operations_per_byte: float | None = None


KEPT = 31
"""Number of latest completions of a stage on a kind of device whose median corrects the prediction."""

DRIFT = 0.25
"""Replan when a correction has moved by more than this."""

READ_GBS = 1.0
"""GB/s read from a file outside the page cache: an estimate, for a plain NVMe disk."""

DeviceStage = tuple[str, str]
"""A kind of device and a stage."""


class Costs(Protocol):
    """The costs that scheduler and planner use. `rate` is work per second, equal for workers of a kind."""

    def work(self, request_id: str, stage: str) -> float: ...

    def rate(self, worker: Worker, stage: str) -> float: ...

    def swap_seconds(self, worker: Worker, components: Collection[str]) -> float:
        """Seconds to bring these components to the worker's device."""
        ...

    def observe(self, completion: Completion, worker: Worker) -> bool:
        """Record an assignment's seconds. True if the costs have drifted by more than DRIFT since the last plan."""
        ...


class UniformCosts:
    """Costs without any knowledge: every stage takes one second everywhere, and swaps take none."""

    def work(self, request_id: str, stage: str) -> float:
        return 1.0

    def rate(self, worker: Worker, stage: str) -> float:
        return 1.0

    def swap_seconds(self, worker: Worker, components: Collection[str]) -> float:
        return 0.0

    def observe(self, completion: Completion, worker: Worker) -> bool:
        return False


@dataclass
class PredictedCosts:
    """Costs from formulas, corrected by what this run and earlier ones measured.

    work_of: operations of each device stage, by request. stage_rates: by stage. weight_bytes: by component.
    corrections: by kind of device and stage, how much slower than the table it is; those of earlier runs hold until
    this run has seen the stage on such a device. A device without measurements gets the correction of this run's other
    devices: most likely the estimated operations are wrong, not the device.
    read_again: bytes on disk, by component, of weights that no worker keeps in host memory, so that they are read again
        for every turn.
    """

    recipe: Recipe
    work_of: Mapping[str, Work]
    stage_rates: Mapping[str, StageRate]
    weight_bytes: Mapping[str, int]
    corrections: dict[DeviceStage, float] = field(default_factory=dict[DeviceStage, float])
    read_again: Mapping[str, int] = field(default_factory=dict[str, int])
    _seen: dict[DeviceStage, deque[float]] = field(init=False, default_factory=dict[DeviceStage, "deque[float]"])
    _elsewhere: dict[str, float] = field(init=False, default_factory=dict[str, float])
    _planned: dict[DeviceStage, float] = field(init=False, default_factory=dict[DeviceStage, float])

    def __post_init__(self) -> None:
        self._position = {stage: position for position, stage in enumerate(self.recipe.on_device)}

    def work(self, request_id: str, stage: str) -> float:
        return self.work_of[request_id][self._position[stage]]

    def rate(self, worker: Worker, stage: str) -> float:
        """Operations per second."""
        return self._table_rate(worker, stage) / self._correction((device_kind(worker), stage))

    def swap_seconds(self, worker: Worker, components: Collection[str]) -> float:
        """Weights only travel to the device: they never change, so nothing is copied back."""
        return sum(self._load_seconds(worker, component) for component in components)

    def observe(self, completion: Completion, worker: Worker) -> bool:
        assignment = completion.assignment
        stage = assignment.stage
        works = [self.work(name, stage) for name in self._known(assignment)]
        if completion.error is not None or completion.worker_lost or not works:
            return False
        predicted = sum(works) / self._table_rate(worker, stage)
        if predicted <= 0:
            return False
        key = device_kind(worker), stage
        seen = self._seen.setdefault(key, deque(maxlen=KEPT))
        seen.append(completion.report.seconds / predicted)
        planned = self._planned.setdefault(key, self._correction(key))
        self.corrections[key] = now = statistics.median(seen)
        self._elsewhere[stage] = statistics.median(self.corrections[other] for other in self._seen if other[1] == stage)
        if max(now, planned) <= (1 + DRIFT) * min(now, planned):
            return False
        self._planned[key] = now
        return True

    def learned(self) -> dict[DeviceStage, float]:
        """The corrections that this run has seen itself."""
        return {key: self.corrections[key] for key in self._seen}

    def _known(self, assignment: Assignment) -> list[str]:
        """Its requests whose work is known; none on the host, of whose work nothing is predicted."""
        if assignment.stage not in self._position:
            return []
        return [name for name in assignment.request_ids if name in self.work_of]

    def _load_seconds(self, worker: Worker, component: str) -> float:
        if component in self.read_again or not worker.keeps_host_copy:
            return self.read_again.get(component, self.weight_bytes[component]) / (READ_GBS * 1e9)
        return self.weight_bytes[component] / (device_rate(worker).link_gbs * 1e9)

    def _correction(self, key: DeviceStage) -> float:
        return self.corrections.get(key) or self._elsewhere.get(key[1], 1.0)

    def _table_rate(self, worker: Worker, stage: str) -> float:
        device, known = device_rate(worker), self.stage_rates[stage]
        rate = device.tflops * 1e12 * known.efficiency
        if known.operations_per_byte is None:
            return rate
        return min(rate, known.operations_per_byte * device.memory_gbs * 1e9)


def device_rate(worker: Worker) -> DeviceRate:
    """The device's figures from the table, by its name."""
    if worker.device == "cpu":
        threads = worker.threads or 1
        return DeviceRate(CPU_THREAD.tflops * threads**THREADS_EXPONENT, CPU_THREAD.memory_gbs, CPU_THREAD.link_gbs)
    return known_rate(worker.device_name) or UNKNOWN_GPU


def device_kind(worker: Worker) -> str:
    """The name that workers of equal speed share: the device's model, with the number of threads for a CPU."""
    return f"{worker.device_name} x{worker.threads or 1}" if worker.device == "cpu" else worker.device_name


def seconds(costs: Costs, request_id: str, stage: str, worker: Worker) -> float:
    """Predicted seconds with the weights on the device."""
    return costs.work(request_id, stage) / costs.rate(worker, stage)


def pass_seconds(costs: Costs, assignment: Assignment, worker: Worker) -> float:
    """Predicted seconds of an assignment, as if its requests ran one by one. What a shared pass gains is measured."""
    return sum(seconds(costs, request_id, assignment.stage, worker) for request_id in assignment.request_ids)
