"""Chooses the order in which to submit a batch: simulates a few and takes the one with the shortest makespan.

Only the end of a batch and the filling of its stages depend on the order, and a rule that is right for one split of
devices is wrong for another: longest first leaves short denoises with long decodes to the end, where they jam the
decoder (1.14 times the bound on 8 devices). Simulating all of them takes milliseconds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ltx_dist.estimates.costs import Costs
from ltx_dist.pipeline.timeline import makespan
from ltx_dist.pipeline.work import Completion
from ltx_dist.pipeline.worker import Placement
from ltx_dist.planning.simulator import Todo, predict

AS_GIVEN = "as given"

WORTH_IT = 0.005
"""Another order than the given one must save this share, because users expect results in the order of their prompts."""

MAX_SIMULATED = 1000
"""A larger batch is represented by this many clips, but always by some for each worker."""

CLIPS_PER_WORKER = 8
SHORT_PER_WORKER = 4
"""Number of clips at the end of a batch that are ordered so that its workers end together."""


@dataclass(frozen=True, slots=True)
class Ordered:
    """An order by name, with its prediction. scale: clips that each simulated one stands for."""

    name: str
    request_ids: tuple[str, ...]
    completions: tuple[Completion, ...]
    scale: float

    @property
    def seconds(self) -> float:
        return makespan(self.completions) * self.scale


def best_order(placement: Placement, todo: Todo, costs: Costs) -> Ordered:
    """The order with the shortest predicted makespan; the given one unless another saves enough."""
    request_ids = list(todo)
    sample = sampled(request_ids, len(placement.workers))
    by_name = rules(placement, todo, costs)
    if len(placement.workers) == 1 and placement.workers[0].residency == "resident":
        by_name = {AS_GIVEN: by_name[AS_GIVEN]}
    found: list[Ordered] = []
    for name, rule in by_name.items():
        completions = tuple(predict(placement, {name: todo[name] for name in rule(sample)}, costs))
        found.append(Ordered(name, (), completions, len(request_ids) / max(len(sample), 1)))
    given, shortest = found[0], min(found, key=lambda ordered: ordered.seconds)
    chosen = shortest if shortest.seconds < (1 - WORTH_IT) * given.seconds else given
    return Ordered(chosen.name, tuple(by_name[chosen.name](request_ids)), chosen.completions, chosen.scale)


def sampled(request_ids: Sequence[str], num_workers: int) -> Sequence[str]:
    """The requests that represent all in a simulation, in their order: all, or a random sample of a large batch.

    Taking every n-th could pick only the short ones of a batch in which long and short alternate.
    """
    size = max(MAX_SIMULATED, CLIPS_PER_WORKER * num_workers)
    if len(request_ids) <= size:
        return request_ids
    return [request_ids[index] for index in sorted(random.Random(0).sample(range(len(request_ids)), size))]


Rule = Callable[[Sequence[str]], list[str]]


def rules(placement: Placement, todo: Todo, costs: Costs) -> dict[str, Rule]:
    """The orders to try, by name. Sorting is stable: requests that cost the same stay in the order in which they were
    given, except where long and short alternate and the middle of the batch is of one length."""
    recipe = placement.recipe
    capacity = {
        stage: sum(costs.rate(worker, stage) for worker in placement.workers if stage in worker.stages)
        for stage in recipe.on_device
    }
    main = recipe.main

    def part(request_id: str, is_wanted: Callable[[str], bool] = lambda stage: True) -> float:
        """Seconds of its stages if all their workers shared them; rounded, so that equal costs compare as equal."""
        stages = (stage for stage in todo[request_id] if capacity.get(stage) and is_wanted(stage))
        return float(f"{sum(costs.work(request_id, stage) / capacity[stage] for stage in stages):.6g}")

    def longest_first(ids: Sequence[str]) -> list[str]:
        return sorted(ids, key=lambda name: -part(name))

    def johnson(ids: Sequence[str]) -> list[str]:
        """Optimal for two machines: first what is denoised quickly, shortest first; then the rest, encoding and
        decoding longest first."""
        before = {name: part(name, main.__contains__) for name in ids}
        after = {name: part(name, lambda stage: stage not in main) for name in ids}
        first = sorted((name for name in ids if before[name] <= after[name]), key=before.__getitem__)
        return first + sorted((name for name in ids if before[name] > after[name]), key=lambda name: -after[name])

    def interleaved(ids: Sequence[str]) -> list[str]:
        """Long and short alternating, so that neither transformers nor decoders get all of theirs at once."""
        by_length = longest_first(ids)
        half = (len(by_length) + 1) // 2
        short = by_length[half:]
        return [name for pair in zip(by_length[:half], [*short, ""], strict=False) for name in pair if name]

    def short_last(ids: Sequence[str]) -> list[str]:
        """As given, but the shortest at the end, longest of them first: workers end together, and most of the order
        stays."""
        last = longest_first(ids)[-SHORT_PER_WORKER * len(placement.workers) :]
        set_aside = set(last)
        return [name for name in ids if name not in set_aside] + last

    return {
        AS_GIVEN: list,
        "short ones last": short_last,
        "longest first": longest_first,
        "Johnson's rule": johnson,
        "long and short alternating": interleaved,
    }
