"""What `ltx-dist plan` prints: the layouts side by side, the workers of the best one, and their predicted timeline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from ltx_dist.api.planning import Plan
from ltx_dist.inputs.variants import summary
from ltx_dist.messages import count, duration, tell
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import UNTILED, DecodeTiling
from ltx_dist.pipeline.timeline import gantt
from ltx_dist.pipeline.worker import Placement
from ltx_dist.placement.fitting import BatchDemand
from ltx_dist.placement.host_plan import host_need, most_on_a_host
from ltx_dist.placement.local_devices import DESCRIBED
from ltx_dist.placement.placement import host_bytes
from ltx_dist.planning.planner import Forecast, advice
from ltx_dist.planning.simulator import predict
from ltx_dist.run.session import say

MAX_SHOWN = 12
"""Maximum number of clips in the predicted timeline."""

MAX_KINDS_SHOWN = 4
"""Maximum number of lines about how often clips run the transformer."""

MAX_DEVICES_SHOWN = 8
"""Maximum number of busy shares in the table. For more devices, it shows the smallest and the largest."""


def print_plan(plan: Plan, console: Console) -> None:
    """Print the plan."""
    batch, inventory, found = plan.batch, plan.inventory, plan.forecasts
    best, precision = found[0], batch.precision(inventory)
    say(
        console,
        f"{count(len(batch.requests), 'clip')} · {batch.checkpoint.name} ({batch.preset.version}, {precision}) "
        f"· layout {best.placement.layout} · order of clips: {best.order.name}",
    )
    if product := summary(batch.names, batch.notes):
        say(console, product)
    for warning in batch.warnings:
        say(console, f"warning: {warning}", "yellow")
    if described := [gpu for gpu in inventory.gpus if gpu.name == DESCRIBED]:
        memory = described[0].memory_bytes
        size = "unknown memory" if memory is None else f"{memory / 1e9:g} GB"
        tell(f"Planned for {count(len(described), 'GPU')} of {size} (from the config, not detected).")
    assumed = batch.family.assumption(batch.checkpoint)
    if assumed and batch.config.model.version == "auto":
        say(console, f"Version: {assumed}.")
    console.print(_layouts_table(found))
    say(console, advice(best))
    console.print()
    demand = batch.demand(precision)
    console.print(_workers_table(best.placement, demand))
    if line := _host_line(best.placement, demand, host_bytes(batch.wishes, inventory)):
        say(console, line)
    for line in dict.fromkeys(_passes(request) for request in batch.requests if request.second_pass):
        say(console, line)
    if best.placement.tiling != UNTILED:
        say(console, f"Decoding in tiles of {_pieces(best.placement.tiling)}")
    if (most := max(demand.together.values(), default=1)) > 1:
        say(
            console,
            f"Up to {most} clips of equal size and settings share a pass; the plan counts this in memory, not in time",
        )
    for line in denoising_lines(batch.family.denoising(request) for request in batch.requests):
        say(console, line)
    for stage, bound in best.placement.max_queued.items():
        if bound:  # 0 for a stage that no clip of this batch runs
            verb = "waits" if bound == 1 else "wait"
            say(console, f"At most {count(bound, 'clip')} {verb} for {stage}")
    shown = {name: batch.todo[name] for name in best.order.request_ids[:MAX_SHOWN]}
    of = f" of the first {len(shown)} clips" if len(batch.requests) > MAX_SHOWN else ""
    say(console, f"Predicted timeline{of}, from formulas and earlier runs on such devices:")
    costs = batch.costs(precision)
    workers = [worker.worker_id for worker in best.placement.workers]
    tell(
        gantt(
            list(predict(best.placement, shown, costs)), workers, best.placement.recipe, width=min(console.width, 120)
        )
    )


def denoising_lines(clips: Iterable[tuple[tuple[int, int], ...]]) -> list[str]:
    """How often clips run the transformer: one line per kind of clip, the most frequent first.

    clips: for each clip and denoising pass, the number of steps and of transformer runs per step.
    """
    return [
        f"{count(many, 'clip')} with {sum(steps * calls for steps, calls in passes)} runs of the transformer"
        f"{'' if many == 1 else ' each'}: " + " + ".join(f"{count(steps, 'step')} x {calls}" for steps, calls in passes)
        for passes, many in Counter(clips).most_common(MAX_KINDS_SHOWN)
    ]


def _host_line(placement: Placement, demand: BatchDemand, available: int | None) -> str:
    """The host memory that workers need, on the host that needs most. Empty on a CPU.

    available: bytes of the smallest host; None if unknown.
    """
    needed, number = most_on_a_host(placement.workers, demand)
    if not needed:
        return ""
    of = "" if available is None else f" of {available / 1e9:.1f} GB"
    return f"Host memory: {needed / 1e9:.1f} GB{of} for {count(number, 'worker')} on one host"


def _passes(request: RenderRequest) -> str:
    first, second, clip = (
        f"{width}x{height}"
        for height, width in (request.first_size, request.decoded_size, (request.height, request.width))
    )
    return f"Two passes: {first}, then {second}" + (f", scaled to {clip}" if second != clip else "")


def _pieces(tiling: DecodeTiling) -> str:
    sides = [
        f"{tiling.tile_size} pixels" if tiling.tile_size else "",
        f"{tiling.tile_frames} frames" if tiling.tile_frames else "",
    ]
    return " and ".join(filter(None, sides))


def _layouts_table(found: Sequence[Forecast]) -> Table:
    """Predicted makespans, shortest first. `bound` is the lower bound of that layout."""
    table = Table(
        "layout", "workers", "makespan", "clips/hour", "bound", "bottleneck", "busy", box=None, pad_edge=False
    )
    for one in found:
        table.add_row(
            one.placement.layout,
            str(len(one.placement.workers)),
            duration(one.seconds, ".3g"),
            f"{one.clips_an_hour:.4g}",
            duration(one.bound.seconds, ".3g"),
            one.bound.by,
            _busy(one),
        )
    return table


def _busy(one: Forecast) -> str:
    shares = [one.busy.get(worker.worker_id, 0.0) for worker in one.placement.workers]
    if len(shares) > MAX_DEVICES_SHOWN:
        return f"{min(shares):.0%} to {max(shares):.0%}"
    return " ".join(f"{share:.0%}" for share in shares)


def _workers_table(placement: Placement, demand: BatchDemand) -> Table:
    table = Table(
        "worker",
        "stages",
        "residency",
        "weights",
        "working set",
        "peak",
        "capacity",
        "host memory",
        "threads",
        box=None,
        pad_edge=False,
    )
    for worker in placement.workers:
        largest = max(demand.working_set(stage, worker.tiling) for stage in worker.stages)
        table.add_row(
            worker.worker_id,
            " ".join(worker.stages),
            worker.residency + "".join(f", {component} by block" for component in worker.streamed),
            f"{demand.weights(worker.stages) / 1e9:.3f} GB",
            f"{largest / 1e9:.3f} GB",
            f"{worker.peak_bytes / 1e9:.1f} GB",
            "-" if worker.capacity is None else f"{worker.capacity / 1e9:.1f} GB",
            "-" if worker.device == "cpu" else f"{host_need(worker, demand).total / 1e9:.1f} GB",
            str(worker.threads or "-"),
        )
    return table
