"""In which order to submit a batch: a few orders are simulated, and the shortest is taken.

Only the end of a batch and the filling of its stages depend on the order, and a rule that is right for one split of
devices is wrong for another: longest first leaves short denoises with long decodes to the end, where they jam the
decoder (1.14 times the bound on 8 devices). Simulating all of them takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ltx_dist.scheduling.costs import Costs, pass_seconds
from ltx_dist.scheduling.placement import Placement, Worker
from ltx_dist.scheduling.scheduler import Scheduler
from ltx_dist.scheduling.simulator import predict
from ltx_dist.scheduling.timeline import makespan
from ltx_dist.types import STAGES, Completion, Stage

AS_SUBMITTED = "as submitted"

WORTH_IT = 0.005
"""Another order than that of submission must save this share: results are then seen in the order of the file."""

MAX_SIMULATED = 1000
"""Of a larger batch so many clips, evenly chosen, stand for all; but always some for each worker."""

CLIPS_A_WORKER = 8


@dataclass(frozen=True, slots=True)
class Ordered:
    """An order by name, and what it is predicted to come to. scale: clips that each simulated one stands for."""

    name: str
    request_ids: tuple[str, ...]
    completions: tuple[Completion, ...]
    scale: float

    @property
    def seconds(self) -> float:
        return makespan(self.completions) * self.scale


def best_order(
    placement: Placement,
    request_ids: Sequence[str],
    costs: Costs,
    at: Mapping[str, Stage] | None = None,
    begun: Sequence[str] = (),
) -> Ordered:
    """The order with the shortest predicted makespan; that of submission unless another is worth it.

    at: the stage at which each request goes on, where not all begin alike. begun: requests that come before them all.
    """
    size = max(MAX_SIMULATED, CLIPS_A_WORKER * len(placement.workers))
    step = -(-len(request_ids) // size) or 1
    rules = _rules(placement, costs)
    if len(placement.workers) == 1 and placement.workers[0].residency == "resident":
        rules = {AS_SUBMITTED: rules[AS_SUBMITTED]}
    found: list[Ordered] = []
    for name, rule in rules.items():
        simulated = rule(request_ids[::step])
        completions = predict(placement, [*begun, *simulated], costs, at)
        found.append(Ordered(name, (), tuple(completions), len(request_ids) / max(len(simulated), 1)))
    submitted, shortest = found[0], min(found, key=lambda ordered: ordered.seconds)
    chosen = shortest if shortest.seconds < (1 - WORTH_IT) * submitted.seconds else submitted
    return Ordered(chosen.name, tuple(rules[chosen.name](request_ids)), chosen.completions, chosen.scale)


def rest_in_order(scheduler: Scheduler, workers: Iterable[Worker], costs: Costs) -> list[str]:
    """The requests that wait, in the order that is best from here on: that of now unless another is worth it.

    workers: of the run; those that are gone are left out. What is on the devices now is counted by what is left of it.
    """
    there = {worker.worker_id: worker for worker in workers if scheduler.has_worker(worker.worker_id)}
    waiting, running = scheduler.waiting(), scheduler.running()
    begun = [request_id for assignment in running for request_id in assignment.request_ids]
    at = {**{name: assignment.stage for assignment in running for name in assignment.request_ids}, **waiting}
    hosted = {stage for worker in there.values() for stage in worker.stages}
    if not waiting or not hosted.issuperset(STAGES[min(map(STAGES.index, at.values())) :]):
        return list(waiting)  # nothing to simulate until a worker is back
    left: dict[tuple[str, Stage], float] = {}
    for assignment, since in running.items():
        whole = pass_seconds(costs, assignment, there[assignment.worker_id])
        share = max(0.0, 1 - since / whole) if whole else 0.0
        left |= {(request_id, assignment.stage): share for request_id in assignment.request_ids}
    placement = Placement("what is left", tuple(there.values()), scheduler.max_queued)
    return list(best_order(placement, list(waiting), _Partly(costs, left), at, begun).request_ids)


class _Partly:
    """Costs of requests that have a share of a stage behind them: `left` is what is not."""

    def __init__(self, costs: Costs, left: Mapping[tuple[str, Stage], float]) -> None:
        self._costs, self._left = costs, left
        self.rate, self.swap_seconds, self.observe = costs.rate, costs.swap_seconds, costs.observe

    def work(self, request_id: str, stage: Stage) -> float:
        return self._costs.work(request_id, stage) * self._left.get((request_id, stage), 1.0)


Rule = Callable[[Sequence[str]], list[str]]


def _rules(placement: Placement, costs: Costs) -> dict[str, Rule]:
    """Every rule is stable: requests that cost the same stay in the order in which they were submitted."""
    capacity = {
        stage: sum(costs.rate(worker, stage) for worker in placement.workers if stage in worker.stages)
        for stage in STAGES
    }

    def part(request_id: str, *stages: Stage) -> float:
        """Seconds of the stages if all their workers shared them; so rounded that equal costs are equal."""
        seconds = sum(costs.work(request_id, stage) / capacity[stage] for stage in stages if capacity[stage])
        return float(f"{seconds:.6g}")

    def longest_first(ids: Sequence[str]) -> list[str]:
        return sorted(ids, key=lambda name: -part(name, *STAGES))

    def johnson(ids: Sequence[str]) -> list[str]:
        """Optimal for two machines: first what is soon denoised, rising; then what is soon encoded and decoded."""
        before = {name: part(name, Stage.DENOISE) for name in ids}
        after = {name: part(name, Stage.ENCODE_TEXT, Stage.DECODE) for name in ids}
        first = sorted((name for name in ids if before[name] <= after[name]), key=before.__getitem__)
        return first + sorted((name for name in ids if before[name] > after[name]), key=lambda name: -after[name])

    def interleaved(ids: Sequence[str]) -> list[str]:
        """Long and short in turns, so that neither the transformers nor the decoders get all of theirs at once."""
        by_length = longest_first(ids)
        half = (len(by_length) + 1) // 2
        short = by_length[half:]
        return [name for pair in zip(by_length[:half], [*short, ""], strict=False) for name in pair if name]

    return {
        AS_SUBMITTED: list,
        "longest first": longest_first,
        "Johnson's rule": johnson,
        "long and short in turns": interleaved,
    }
