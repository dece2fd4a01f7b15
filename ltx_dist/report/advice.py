"""Says in one sentence what limited a batch, from measurements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltx_dist.pipeline.recipe import Recipe
from ltx_dist.pipeline.timeline import first_start, went_wrong
from ltx_dist.pipeline.work import Completion
from ltx_dist.report.run_record import recorded_completions
from ltx_dist.report.tally import precise_duration

SATURATED = 0.9
"""A worker that was busy for this share of the makespan counts as saturated."""


def advice(record: Mapping[str, Any], recipe: Recipe) -> str:
    """One sentence about what limited the batch, from measurements; empty if there are none yet."""
    hosts = {stage: [w["worker_id"] for w in record["workers"] if stage in w["stages"]] for stage in recipe.on_device}
    # Host stages are left out: they run beside the devices' work, and another device would not make them faster.
    completions = [c for c in recorded_completions(dict(record)) if not went_wrong(c) and hosts.get(c.assignment.stage)]
    total = record["makespan_seconds"]
    if not completions or total <= 0:
        return ""
    by_clip, by_stage = _sums(completions)
    pole = max(by_stage, key=lambda stage: by_stage[stage] / len(hosts[stage]))
    longest = max(by_clip.values())
    if len(record["workers"]) > 1 and longest >= SATURATED * total:
        alone = f"{precise_duration(longest)} of {precise_duration(total)}"
        return f"The longest clip alone took {alone}: more workers would not help."
    shares = record["busy_share"]
    noun = recipe[pole].label.noun
    busy = sum(shares[worker] for worker in hosts[pole]) / len(hosts[pole])
    who = hosts[pole][0] if len(hosts[pole]) == 1 else f"its {len(hosts[pole])} workers"
    was = "was" if len(hosts[pole]) == 1 else "were"
    if busy < SATURATED:
        loading = sum(c.report.load_seconds for c in completions if c.started > first_start(completions))
        loaded = (
            f" Loading weights took {precise_duration(loading)} of the workers' time." if loading > 0.01 * total else ""
        )
        return f"The bottleneck is {noun}, yet {who} waited {1 - busy:.0%} of the makespan.{loaded}"
    if len(hosts[pole]) == len(record["workers"]):
        every = "The worker was" if len(hosts[pole]) == 1 else "The workers were"
        return f"{every} busy {busy:.0%} of the makespan: only more or faster devices would shorten this batch."
    return f"The bottleneck is {noun}: {who} {was} busy {busy:.0%}; another worker for it would help most."


def _sums(completions: list[Completion]) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of work by clip, including its share of shared passes, and by stage."""
    by_clip: dict[str, float] = {}
    by_stage: dict[str, float] = {}
    for completion in completions:
        assignment, seconds = completion.assignment, completion.report.seconds
        for request_id in assignment.request_ids:
            by_clip[request_id] = by_clip.get(request_id, 0.0) + seconds / len(assignment.request_ids)
        by_stage[assignment.stage] = by_stage.get(assignment.stage, 0.0) + seconds
    return by_clip, by_stage
