"""The timeline of the page as data: one lane per device, one bar per completion, in percent of the makespan."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ltx_dist.messages import clean
from ltx_dist.pipeline.recipe import Recipe
from ltx_dist.pipeline.timeline import first_start, lane_of, lanes, makespan, went_wrong
from ltx_dist.pipeline.work import Completion
from ltx_dist.report.tally import precise_duration


@dataclass(frozen=True, slots=True)
class Bar:
    """One completion on a lane; `x`, `width` and `load` (before `x`) are percent of the makespan.

    name: of its first clip.
    """

    name: str
    stage: str
    x: float
    width: float
    load: float
    shade: int
    label: str
    failed: bool


def lanes_of(
    record: Mapping[str, Any], completions: Sequence[Completion], recipe: Recipe
) -> tuple[list[tuple[Mapping[str, Any], list[Bar]]], dict[str, int]]:
    """The workers of a run record, each with its bars, and the clips in the order in which they began."""
    origin, total = first_start(completions), makespan(completions)
    # Long ones first, so that short ones are drawn on top of them.
    by_worker = {
        worker: sorted(lane, key=lambda c: c.started - c.finished)
        for worker, lane in lanes(completions, recipe).items()
    }
    began = list(dict.fromkeys(name for c in completions for name in c.assignment.request_ids))
    order = {name: position for position, name in enumerate(began)}
    drawn = [
        (worker, _bars(by_worker.get(worker["worker_id"], []), origin, total, recipe))
        for worker in _lane_heads(record["workers"], by_worker, recipe)
    ]
    return drawn, order


def _bars(lane: Sequence[Completion], origin: float, total: float, recipe: Recipe) -> list[Bar]:
    """Clip by clip in two shades, counted in the lane: over all clips, every second lane would have but one."""
    firsts = dict.fromkeys(c.assignment.request_ids[0] for c in sorted(lane, key=lambda c: c.started))
    shades = {name: position % 2 for position, name in enumerate(firsts)}
    return [_bar(c, origin, total, shades[c.assignment.request_ids[0]], recipe) for c in lane]


def _bar(completion: Completion, origin: float, total: float, shade: int, recipe: Recipe) -> Bar:
    assignment, scale = completion.assignment, 100 / max(total, 1e-6)
    first, *others = assignment.request_ids
    x = (completion.started - origin) * scale
    seconds, load = completion.report.seconds, completion.report.load_seconds
    parts = [first, recipe[assignment.stage].label.verb, precise_duration(seconds)]
    parts += [f"in one pass with {', '.join(others)}"] * bool(others)
    parts += [f"loading {precise_duration(load)}"] * (load >= 0.005)
    parts.append(f"from {precise_duration(completion.started - origin)} on {assignment.worker_id}")
    parts += [clean(completion.error or "worker lost")] * went_wrong(completion)
    return Bar(
        name=first,
        stage=assignment.stage,
        x=round(x, 4),
        width=round(seconds * scale, 4),
        load=round(min(load * scale, x), 4),
        shade=shade,
        label=" · ".join(parts),
        failed=went_wrong(completion),
    )


def _lane_heads(
    workers: Sequence[Mapping[str, Any]], lane_names: Container[str], recipe: Recipe
) -> Iterator[Mapping[str, Any]]:
    """The workers, each followed by the lanes of its host stages where it ran some."""
    for worker in workers:
        yield worker
        for stage in recipe:
            name = lane_of(worker["worker_id"], stage)
            if stage.runs_on == "host" and name in lane_names:
                yield {**worker, "worker_id": name, "stages": [stage.name]}
