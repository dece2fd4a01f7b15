"""Metrics of a batch for Prometheus, through the agents of Ray's nodes; launch/grafana.json draws them.

Written only by the driver. Clips are not tags: each would be a time series forever.
"""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable, Mapping

from ray.util.metrics import Counter, Gauge, Histogram

from ltx_dist.pipeline.timeline import went_wrong
from ltx_dist.pipeline.work import Completion, RenderResult

SECONDS = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
"""Bounds of the histograms' buckets: encoding takes 0.04 s on a large GPU, denoising 13B on a small one minutes."""


class RayMetrics:
    """An observer of the batch. Ray sends the values every few seconds in its own thread.

    queue_lengths: clips that wait in front of each stage, asked whenever a stage ends.
    """

    def __init__(self, queue_lengths: Callable[[], Mapping[str, int]]) -> None:
        self._queue_lengths = queue_lengths
        self._runs: dict[str, Counts[str]] = {}
        self._clips = Counter("ltx_clips", "Clips that ended, by status (done or failed).", ("status",))
        self._retries = Counter("ltx_retries", "Stages that were run again for a clip.", ("stage",))
        self._failures = Counter(
            "ltx_stage_failures", "Stages that ended in an error or with their worker.", ("stage",)
        )
        # Ray exports a histogram's sum as that of its buckets' middles, so busy shares need a count of their own.
        self._busy = Counter("ltx_busy_seconds", "Seconds of work and of loading weights.", ("worker",))
        self._seconds = Histogram("ltx_stage_seconds", "Seconds of work.", SECONDS, ("stage", "worker"))
        # Over the count of ltx_stage_seconds: clips that share a pass.
        self._passed = Counter("ltx_stage_clips", "Clips that went through a stage.", ("stage", "worker"))
        self._loading = Histogram(
            "ltx_load_seconds", "Seconds of loading weights before the work.", SECONDS, ("stage", "worker")
        )
        self._queued = Gauge("ltx_queue_length", "Clips that wait for a stage.", ("stage",))
        self._memory = Gauge("ltx_device_peak_bytes", "Peak device memory in a stage.", ("stage", "worker"))

    def stage_ended(self, completion: Completion) -> None:
        assignment, report = completion.assignment, completion.report
        stage = {"stage": str(assignment.stage)}
        place = stage | {"worker": assignment.worker_id}
        for request_id in assignment.request_ids:
            runs = self._runs.setdefault(request_id, Counts())
            runs[assignment.stage] += 1
            if runs[assignment.stage] > 1:
                self._retries.inc(1, stage)
        if seconds := report.seconds + report.load_seconds:  # a worker that died reports none, and Ray refuses a 0
            self._busy.inc(seconds, {"worker": assignment.worker_id})
        if went_wrong(completion):
            self._failures.inc(1, stage)
        else:
            self._seconds.observe(report.seconds, place)
            self._passed.inc(len(assignment.request_ids), place)
        if report.load_seconds > 0:
            self._loading.observe(report.load_seconds, place)
        if report.peak_bytes is not None:
            self._memory.set(report.peak_bytes, place)
        for queued, number in self._queue_lengths().items():
            self._queued.set(number, {"stage": str(queued)})

    def clip_ended(self, result: RenderResult) -> None:
        self._runs.pop(result.request.request_id, None)
        self._clips.inc(1, {"status": result.status})
