"""The timeline of the page as data: one lane per device, one bar per completion, in seconds of the makespan."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ltx_dist.pipeline.recipe import Recipe
from ltx_dist.pipeline.timeline import first_start, lane_of, lanes, went_wrong
from ltx_dist.pipeline.work import Completion


class Bar(NamedTuple):
    """One completion on a lane: a JSON list, which `timeline.js` reads by position.

    stage: its position in the recipe. start: in seconds from the first work. seconds: of work; load: seconds of loading
    before it. shade: 0 or 1, alternating. clips: positions in the list of clips that `lanes_of` returns. error: empty
    if it succeeded.
    """

    stage: int
    start: float
    seconds: float
    load: float
    shade: int
    clips: list[int]
    error: str


class Lane(NamedTuple):
    """A worker, or one of its host stages, with its bars in the order of their starts."""

    name: str
    busy: str
    bars: list[Bar]


def lanes_of(
    record: Mapping[str, Any], completions: Sequence[Completion], recipe: Recipe
) -> tuple[list[Lane], list[str]]:
    """The lanes of a run record, and the clips in the order in which they began."""
    began = list(dict.fromkeys(name for c in completions for name in c.assignment.request_ids))
    order = {name: position for position, name in enumerate(began)}
    origin, by_worker = first_start(completions), lanes(completions, recipe)
    shares = record["busy_share"]
    drawn = [
        Lane(
            name,
            f"{shares[name]:.0%} busy" if name in shares else "on its host",
            _bars(by_worker.get(name, []), origin, order, recipe),
        )
        for name in _lane_names(record["workers"], by_worker, recipe)
    ]
    return drawn, began


def _bars(lane: Sequence[Completion], origin: float, order: Mapping[str, int], recipe: Recipe) -> list[Bar]:
    """The bars of a lane, in shades that alternate from clip to clip within the lane: alternating over all clips would
    leave some lanes with only one shade."""
    firsts = dict.fromkeys(c.assignment.request_ids[0] for c in lane)
    shades = {name: position % 2 for position, name in enumerate(firsts)}
    return [
        Bar(
            stage=recipe.position(c.assignment.stage),
            start=round(c.started - origin, 4),
            seconds=round(c.report.seconds, 4),
            load=round(max(0.0, min(c.report.load_seconds, c.started - origin)), 4),
            shade=shades[c.assignment.request_ids[0]],
            clips=[order[name] for name in c.assignment.request_ids],
            error=(c.error or "worker lost") if went_wrong(c) else "",
        )
        for c in lane
    ]


def _lane_names(workers: Sequence[Mapping[str, Any]], lane_names: Container[str], recipe: Recipe) -> Iterator[str]:
    """The workers, each followed by the lanes of its host stages where it ran some."""
    for worker in workers:
        yield worker["worker_id"]
        for stage in recipe:
            name = lane_of(worker["worker_id"], stage)
            if stage.runs_on == "host" and name in lane_names:
                yield name
