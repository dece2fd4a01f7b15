"""Predicted seconds of each stage of a clip and of each swap: work over a device's rate, corrected by what was seen.

Seconds only rank layouts and orders; nothing waits by them, so a wrong rate costs time and never a clip.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ltx_dist.pipeline.stages import STAGES, Stage
from ltx_dist.pipeline.work import Assignment, Completion
from ltx_dist.pipeline.worker import Worker

Work = tuple[float, float, float]
"""What the stages of one clip take, in the order of STAGES: operations, or seconds on a device of rate 1."""


@dataclass(frozen=True, slots=True)
class DeviceRate:
    """tflops: dense matrix products in bfloat16, as published (H100, H200: as measured on random data). memory_gbs and
    link_gbs: GB/s of the device's own memory, and from pinned host memory to it."""

    tflops: float
    memory_gbs: float
    link_gbs: float


DEVICE_RATES: Mapping[str, DeviceRate] = {
    "H200": DeviceRate(790, 4800, 50),
    "H100": DeviceRate(790, 3350, 50),
    "A100": DeviceRate(312, 1555, 25),
    "L40S": DeviceRate(362, 864, 25),
    "5090": DeviceRate(209, 1792, 50),
    "4090": DeviceRate(165, 1008, 25),
    "3090": DeviceRate(71, 936, 25),
    "3060": DeviceRate(25, 360, 12),
}
"""By a part of the name that the driver gives."""

UNKNOWN_GPU = DeviceRate(100, 600, 12)
CPU_THREAD = DeviceRate(0.04, 8, 8)
"""Of one core: AVX2 in float32."""

THREADS_EXPONENT = 0.8
"""A second thread makes a stage 1.7 times as fast, not twice."""

EFFICIENCY: Mapping[Stage, float] = {Stage.ENCODE_TEXT: 0.3, Stage.DENOISE: 0.59, Stage.DECODE: 0.35}
"""Share of the peak that each model reaches: 0.59 is the 97 of 165 TFLOP/s that diffusers reaches on an RTX 4090; the
other two are estimates, and like all of these are replaced by what the first clips take."""

KEPT = 31
"""Completions of a stage on a kind of device whose median corrects the prediction."""

DRIFT = 0.25
"""A correction that moved by more than this since it was last planned with asks for a new plan."""

READ_GBS = 1.0
"""Of a file that may have left the page cache: an estimate, for a plain NVMe disk."""

DeviceStage = tuple[str, Stage]


class Costs(Protocol):
    """What the scheduler and the planner ask. `rate` is work a second, the same for workers of a kind."""

    def work(self, request_id: str, stage: Stage) -> float: ...

    def rate(self, worker: Worker, stage: Stage) -> float: ...

    def swap_seconds(self, worker: Worker, stage: Stage) -> float: ...

    def observe(self, completion: Completion, worker: Worker) -> bool:
        """Take in what an assignment took; True when what was planned with is off by more than DRIFT."""
        ...


class Unknown:
    """Costs of which nothing is known: every stage takes a second everywhere, and swaps take none."""

    def work(self, request_id: str, stage: Stage) -> float:
        return 1.0

    def rate(self, worker: Worker, stage: Stage) -> float:
        return 1.0

    def swap_seconds(self, worker: Worker, stage: Stage) -> float:
        return 0.0

    def observe(self, completion: Completion, worker: Worker) -> bool:
        return False


@dataclass
class PredictedCosts:
    """By request its `Work`; by stage the bytes of its weights; by (device, stage) how much slower than the table.

    read_again: bytes on disk of weights of which no worker keeps a host copy: they are read for every turn.
    The corrections are those kept from earlier runs, until this run has seen the stage on such a device. A device of
    which nothing is known is taken to be off as the others of this run are: the model's operations are, not the device.
    """

    work_of: Mapping[str, Work]
    weight_bytes: Mapping[Stage, int]
    corrections: dict[DeviceStage, float] = field(default_factory=dict[DeviceStage, float])
    read_again: Mapping[Stage, int] = field(default_factory=dict[Stage, int])
    _seen: dict[DeviceStage, deque[float]] = field(default_factory=dict[DeviceStage, "deque[float]"])
    _elsewhere: dict[Stage, float] = field(default_factory=dict[Stage, float])
    _planned: dict[DeviceStage, float] = field(default_factory=dict[DeviceStage, float])

    def work(self, request_id: str, stage: Stage) -> float:
        return self.work_of[request_id][STAGES.index(stage)]

    def rate(self, worker: Worker, stage: Stage) -> float:
        """Operations a second."""
        return self._table_rate(worker, stage) / self._correction((device_kind(worker), stage))

    def swap_seconds(self, worker: Worker, stage: Stage) -> float:
        """Weights only travel to the device: they never change, so nothing is copied back."""
        if stage in self.read_again or not worker.keeps_host_copy:
            return self.read_again.get(stage, self.weight_bytes[stage]) / (READ_GBS * 1e9)
        return self.weight_bytes[stage] / (device_rate(worker).link_gbs * 1e9)

    def observe(self, completion: Completion, worker: Worker) -> bool:
        assignment = completion.assignment
        stage = assignment.stage
        works = [self.work_of[name] for name in assignment.request_ids if name in self.work_of]
        if completion.error is not None or completion.worker_lost or stage not in STAGES or not works:
            return False
        predicted = sum(work[STAGES.index(stage)] for work in works) / self._table_rate(worker, stage)
        if predicted <= 0:
            return False
        key = device_kind(worker), stage
        seen = self._seen.setdefault(key, deque(maxlen=KEPT))
        seen.append(completion.report.seconds / predicted)
        planned = self._planned.setdefault(key, self._correction(key))
        self.corrections[key] = now = statistics.median(seen)
        self._elsewhere[stage] = statistics.median(self.corrections[other] for other in self._seen if other[1] is stage)
        if max(now, planned) <= (1 + DRIFT) * min(now, planned):
            return False
        self._planned[key] = now
        return True

    def learned(self) -> dict[DeviceStage, float]:
        """The corrections that this run has seen itself."""
        return {key: self.corrections[key] for key in self._seen}

    def _correction(self, key: DeviceStage) -> float:
        return self.corrections.get(key) or self._elsewhere.get(key[1], 1.0)

    def _table_rate(self, worker: Worker, stage: Stage) -> float:
        rate = device_rate(worker)
        by_operations = rate.tflops * 1e12 * EFFICIENCY[stage]
        if stage is not Stage.ENCODE_TEXT:
            return by_operations
        # One prompt makes of T5 a read of all its weights: 128 tokens are 2 x 128 operations for 2 bytes.
        return min(by_operations, 128 * rate.memory_gbs * 1e9)


def device_kind(worker: Worker) -> str:
    """What workers of equal speed share: the device's model, and the threads of a CPU."""
    return f"{worker.device_name} x{worker.threads or 1}" if worker.device == "cpu" else worker.device_name


def device_rate(worker: Worker) -> DeviceRate:
    """From the table, by the device's name."""
    if worker.device == "cpu":
        threads = worker.threads or 1
        return DeviceRate(CPU_THREAD.tflops * threads**THREADS_EXPONENT, CPU_THREAD.memory_gbs, CPU_THREAD.link_gbs)
    return next((rate for part, rate in DEVICE_RATES.items() if part in worker.device_name), UNKNOWN_GPU)


def seconds(costs: Costs, request_id: str, stage: Stage, worker: Worker) -> float:
    """Predicted, weights on the device."""
    return costs.work(request_id, stage) / costs.rate(worker, stage)


def pass_seconds(costs: Costs, assignment: Assignment, worker: Worker) -> float:
    """Predicted of an assignment: what its requests take one by one. That a pass may gain more, completions tell."""
    return sum(seconds(costs, request_id, assignment.stage, worker) for request_id in assignment.request_ids)
