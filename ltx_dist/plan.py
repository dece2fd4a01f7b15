"""What `ltx-dist plan` prints: the workers, and the order of work as the scheduler would choose it."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from ltx_dist.batch import Batch
from ltx_dist.presets import assumption
from ltx_dist.scheduling.inventory import Inventory
from ltx_dist.scheduling.placement import Placement
from ltx_dist.scheduling.simulator import simulate
from ltx_dist.scheduling.timeline import gantt
from ltx_dist.types import UNTILED, Assignment, Stage
from ltx_dist.wording import count

MAX_SHOWN = 12
"""Clips in the picture of the order of work; the rest goes on in the same way."""

RELATIVE_ENCODE = 0.4
RELATIVE_DECODE = 3.0
"""Cost of the other stages in denoising steps, for the picture only: at 40 steps the transformer takes some 95 %."""


def print_plan(batch: Batch, inventory: Inventory, console: Console) -> None:
    """Raises ValueError when the devices cannot carry the layout."""
    placement = batch.placement(inventory)
    precision = batch.precision(inventory)
    console.print(
        f"{count(len(batch.requests), 'clip')} · {batch.checkpoint.name} ({batch.preset.version}, {precision}) "
        f"· layout {placement.layout}",
        highlight=False,
        markup=False,
    )
    assumed = assumption(batch.checkpoint)
    if assumed and batch.config.model.version == "auto":
        console.print(f"Version: {assumed}.", highlight=False, markup=False, soft_wrap=True)
    console.print(_workers_table(batch, placement, precision))
    if placement.tiling != UNTILED:
        size, frames = placement.tiling.tile_size or "-", placement.tiling.tile_frames or "-"
        console.print(f"Decoding in pieces of {size} pixels and {frames} frames", highlight=False)
    for stage, bound in placement.max_queued.items():
        console.print(f"At most {bound} clips wait for {stage}", highlight=False)
    console.print(
        "Order of work; the time is in denoising steps, with rough guesses for the other stages:", highlight=False
    )
    shown = batch.requests[:MAX_SHOWN]
    steps = {request.request_id: request.num_inference_steps for request in shown}
    completions = simulate(placement, steps, lambda assignment: _relative_seconds(assignment, steps))
    print(
        gantt(
            completions, [worker.worker_id for worker in placement.workers], width=min(console.width, 120), unit="steps"
        )
    )
    if len(batch.requests) > MAX_SHOWN:
        console.print(f"... and {len(batch.requests) - MAX_SHOWN} more in the same way", highlight=False)


def _workers_table(batch: Batch, placement: Placement, precision: str) -> Table:
    table = Table(
        "worker", "stages", "residency", "weights", "working set", "at most", "of", "threads", box=None, pad_edge=False
    )
    demand = batch.demand(precision)
    for worker in placement.workers:
        largest = max(demand.models.working_set(stage, demand.shapes, worker.tiling) for stage in worker.stages)
        table.add_row(
            worker.worker_id,
            " ".join(stage.value for stage in worker.stages),
            worker.residency + "".join(f", {stage} by block" for stage in worker.streamed),
            f"{demand.weights(worker.stages) / 1e9:.3f} GB",
            f"{largest / 1e9:.3f} GB",
            f"{worker.peak_bytes / 1e9:.1f} GB",
            "-" if worker.capacity is None else f"{worker.capacity / 1e9:.1f} GB",
            str(worker.threads or "-"),
        )
    return table


def _relative_seconds(assignment: Assignment, steps: dict[str, int]) -> float:
    if assignment.stage is Stage.DENOISE:
        return steps[assignment.request_id]
    return RELATIVE_ENCODE if assignment.stage is Stage.ENCODE_TEXT else RELATIVE_DECODE
