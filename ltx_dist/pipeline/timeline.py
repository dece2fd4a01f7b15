"""Computes lanes, makespan, busy shares and overlaps from completions, and draws them as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ltx_dist.pipeline.recipe import Recipe, StageSpec
from ltx_dist.pipeline.work import Completion, Failure

IDLE, BAR, FAILED = ".", "=", "x"

TICK_CELLS = 10
"""Ticks of the time axis are at least this many cells apart, so that their numbers never touch."""

SHORTEST = 1e-6
"""Minimum seconds that the picture spans, so that an empty batch has an axis, too."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """`other` ran for `seconds` while another worker ran a main stage of another request, such as denoising."""

    main: Completion
    other: Completion
    seconds: float


def lane_of(worker_id: str, stage: StageSpec) -> str:
    """The worker's name; each of its host stages has a lane of its own, beside the device."""
    return worker_id if stage.runs_on == "device" else f"{worker_id} {stage.label.verb}"


def lanes(completions: Iterable[Completion], recipe: Recipe) -> dict[str, list[Completion]]:
    """Completions by `lane_of`, each lane by start; lanes by name."""
    found: dict[str, list[Completion]] = {}
    for completion in sorted(completions, key=lambda c: (_lane(c, recipe), c.started, c.finished)):
        found.setdefault(_lane(completion, recipe), []).append(completion)
    return found


def _lane(completion: Completion, recipe: Recipe) -> str:
    return lane_of(completion.assignment.worker_id, recipe[completion.assignment.stage])


def went_wrong(completion: Completion) -> bool:
    """Whether the work was in vain: the request failed there, or the worker was lost."""
    return completion.error is not None or completion.failure is not None


def first_start(completions: Iterable[Completion]) -> float:
    """Seconds from the run's start, when its workers begin to load, to the first work; 0 if there is none.

    Assignments that ended as QUEUED are left out: they never began, and most were given out before their worker was up.
    """
    return min((c.started for c in completions if c.failure is not Failure.QUEUED), default=0.0)


def makespan(completions: Sequence[Completion]) -> float:
    """Seconds from the start of the first work to the end of the last; 0 if there is none. Start-up does not count."""
    return max((c.finished for c in completions), default=0.0) - first_start(completions)


def busy_shares(completions: Sequence[Completion], recipe: Recipe) -> dict[str, float]:
    """The busy share of each lane: the share of the makespan, 0 to 1, in which it had work, overlaps counted once."""
    total = makespan(completions)
    return {name: _busy_seconds(lane) / total if total else 0.0 for name, lane in lanes(completions, recipe).items()}


def _busy_seconds(lane: Sequence[Completion]) -> float:
    busy, free_from = 0.0, float("-inf")
    for completion in lane:
        busy += max(0.0, completion.finished - max(completion.started, free_from))
        free_from = max(free_from, completion.finished)
    return busy


def overlaps(completions: Sequence[Completion], recipe: Recipe) -> list[Overlap]:
    """Every other stage of one request that shares time with a main stage of another request on another worker.

    One pass by start: at any time at most as many main stages are under way as there are workers.
    """
    found: list[Overlap] = []
    active: list[Completion] = []
    for completion in sorted(completions, key=lambda c: (c.started, c.finished)):
        active = [earlier for earlier in active if earlier.finished > completion.started]
        for earlier in active:
            are_main = earlier.assignment.stage in recipe.main, completion.assignment.stage in recipe.main
            if are_main[0] != are_main[1] and _independent(earlier, completion):
                main, other = (earlier, completion) if are_main[0] else (completion, earlier)
                if (seconds := _shared_seconds(main, other)) > 0:
                    found.append(Overlap(main, other, seconds))
        active.append(completion)
    return sorted(found, key=lambda pair: (pair.main.started, pair.other.started))


def gantt(
    completions: Sequence[Completion], workers: Sequence[str], recipe: Recipe, width: int = 80, unit: str = "s"
) -> str:
    """One row per worker, one letter per stage, time from left to right; below, the makespan and the busy shares.

    The picture begins with the first work. Clips are numbered in the order in which their work began; D4+2 is the
    fourth with two others in its pass. A stage shorter than a cell is drawn as a whole one, over the longer stage next
    to it. unit: of the times.
    """
    by_lane = lanes(_from_zero(completions), recipe)
    host = [stage for stage in recipe if stage.runs_on == "host"]
    rows = [
        name
        for worker in workers
        for name in (worker, *(lane_of(worker, stage) for stage in host))
        if name == worker or name in by_lane
    ]
    label = max((len(row) for row in rows), default=0) + 2
    cells = max(width - label - 1, 2 * TICK_CELLS)
    total = makespan(completions)
    per_second = cells / max(total, SHORTEST)
    numbers = _numbers(completions)
    picture = [
        f"{row:<{label}}" + _row(by_lane.get(row, []), cells, per_second, numbers, recipe).rstrip() for row in rows
    ]
    axis = [f"{'':{label}}{line}".rstrip() for line in _axis(total, cells, per_second, unit)]
    by_share = busy_shares(completions, recipe)
    shares = ", ".join(f"{worker} {by_share.get(worker, 0.0):.0%}" for worker in workers)
    busy = textwrap.wrap(f"busy: {shares}", max(width, 20), subsequent_indent="      ", break_on_hyphens=False)
    return "\n".join([*picture, *axis, "", _legend(completions, recipe), f"makespan: {total:.2f} {unit}", *busy])


def _from_zero(completions: Sequence[Completion]) -> list[Completion]:
    origin = first_start(completions)
    return [replace(c, started=c.started - origin, finished=c.finished - origin) for c in completions]


def _numbers(completions: Sequence[Completion]) -> dict[str, int]:
    """1, 2, 3 ... in the order of each request's first start; by name where two began together."""
    began: dict[str, float] = {}
    for completion in completions:
        for name in completion.assignment.request_ids:
            began[name] = min(completion.started, began.get(name, completion.started))
    return {name: i for i, name in enumerate(sorted(began, key=lambda name: (began[name], name)), start=1)}


def _shared_seconds(a: Completion, b: Completion) -> float:
    return min(a.finished, b.finished) - max(a.started, b.started)


def _independent(a: Completion, b: Completion) -> bool:
    one, other = a.assignment, b.assignment
    return not set(one.request_ids) & set(other.request_ids) and one.worker_id != other.worker_id


def _row(lane: Sequence[Completion], cells: int, per_second: float, numbers: dict[str, int], recipe: Recipe) -> str:
    """Longest first, so that the short ones lie on top; then each stretch still visible is labelled."""
    owner: list[Completion | None] = [None] * cells
    for completion in sorted(lane, key=lambda c: c.started - c.finished):
        start = min(int(completion.started * per_second), cells - 1)
        end = min(max(start + 1, round(completion.finished * per_second)), cells)
        owner[start:end] = [completion] * (end - start)
    text, position = "", 0
    while position < cells:
        end = position + 1
        while end < cells and owner[end] is owner[position]:
            end += 1
        text += _stretch(owner[position], end - position, numbers, recipe)
        position = end
    return text


def _stretch(completion: Completion | None, length: int, numbers: dict[str, int], recipe: Recipe) -> str:
    if completion is None:
        return IDLE * length
    letter = recipe[completion.assignment.stage].label.letter
    shared = sorted(numbers[name] for name in completion.assignment.request_ids)
    name = f"{letter}{shared[0]}" + f"+{len(shared) - 1}" * (len(shared) > 1)
    # A number cut short is another clip's number: all of it or only the letter.
    bar = (name if len(name) <= length else letter).ljust(length, BAR)
    return bar[:-1] + FAILED if went_wrong(completion) else bar


def _axis(total: float, cells: int, per_second: float, unit: str) -> tuple[str, str]:
    """The line of ticks and the line of their times."""
    step = _tick_seconds(TICK_CELLS / per_second)
    line, numbers = ["-"] * (cells + 1), [" "] * (cells + 1)
    for i in range(int(total / step + 1e-9) + 1):
        cell = round(i * step * per_second)
        line[cell] = "+"
        text = f"{i * step:g}" + (f" {unit}" if i == 0 else "")
        if cell + len(text) <= len(numbers):
            numbers[cell : cell + len(text)] = text
    return "".join(line), "".join(numbers)


def _tick_seconds(at_least: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, ... times a power of ten that is not below `at_least`."""
    power = 10.0**-6
    while True:
        for factor in (1, 2, 5):
            if factor * power >= at_least * (1 - 1e-9):
                return factor * power
        power *= 10


def _legend(completions: Sequence[Completion], recipe: Recipe) -> str:
    ran = {completion.assignment.stage for completion in completions}
    entries = [f"{stage.label.letter} {stage.name}" for stage in recipe if stage.name in ran] + [f"{IDLE} idle"]
    entries += [f"{FAILED} failed"] * any(went_wrong(c) for c in completions)
    return "   ".join(entries)
