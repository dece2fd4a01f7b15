"""Batches of LTX-2.5 on H100s, on a virtual clock: the makespan against its bound, and what a card for decoding gains.

    python benchmarks/ltx2_schedule.py [--quick]

No GPU and no Ray: the real placement and scheduler, on headers of full size. Seconds of each stage are its operations
over an H100's rates (models/ltx2/estimates.py). Against the bound they are multiplied by factors that the cost model is
not told and has to learn. Sizes of the clips are drawn at random, three seeds. Swaps of weights take the time that the
link takes for their bytes; what tiles of the decoder compute twice is not counted.

Layouts: the planner's own choice; some of the H100s that decode and others that do the rest; one H100 with a smaller
card beside it that decodes, against the same H100 alone.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ltx_dist.estimates.costs import PredictedCosts, pass_seconds
from ltx_dist.inputs.config import RenderConfig
from ltx_dist.pipeline.timeline import makespan
from ltx_dist.pipeline.work import Assignment
from ltx_dist.pipeline.worker import Placement
from ltx_dist.placement.inventory import DeviceInfo, Inventory
from ltx_dist.placement.placement import DEFAULT_WAVE, Wishes, in_waves, worker_for
from ltx_dist.planning.losses import measured_bound
from ltx_dist.planning.order_search import better_orders
from ltx_dist.planning.ordering import best_order
from ltx_dist.planning.simulator import simulate
from ltx_dist.run.batch import Batch, open_batch

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))
from make_ltx2_checkpoint import make_checkpoint  # noqa: E402

GB, PRECISION = 10**9, "bfloat16"
H100 = DeviceInfo("NVIDIA H100 80GB HBM3", 80 * GB)
L40S, RTX_4090 = DeviceInfo("NVIDIA L40S", 48 * GB), DeviceInfo("NVIDIA GeForce RTX 4090", 24 * GB)
AS_KNOWN = {"encode_text": 1.0, "denoise": 1.0, "refine": 1.0, "decode": 1.0}
SLOWER = AS_KNOWN | {"denoise": 1.4, "refine": 1.4, "decode": 0.7}
"""Factors on the table of seconds, which the cost model has to learn."""

SIZES = {"distilled": [(1216, 704), (1536, 1024), (1920, 1088)], "guided": [(768, 512), (1216, 704), (1536, 1024)]}
"""Width and height, by flow. 121 frames."""

GUIDED = {
    "recipe": "one_pass", "guidance_scale": 3, "stg_scale": 1, "modality_scale": 3, "audio_guidance_scale": 7,
    "audio_stg_scale": 1, "audio_modality_scale": 3, "spatio_temporal_guidance_blocks": [28],
    "sigmas": [1 - step / 30 for step in range(30)],
}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """Figures of one batch. decode: its share of all work."""

    layout: str
    seconds: float
    ratio: float
    decode: float


def batch_of(flow: str, num_clips: int, seed: int, model: Path, folder: Path) -> Batch:
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for index in range(num_clips):
        width, height = rng.choice(SIZES[flow])
        row = {"prompt": f"clip {index}", "width": width, "height": height, "num_frames": 121}
        rows.append(row | (GUIDED if flow == "guided" else {}))
    prompts = folder / f"{flow}-{num_clips}-{seed}.jsonl"
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return open_batch(
        str(prompts), RenderConfig.model_validate({"model": {"checkpoint": str(model)}, "cache": {"embeddings": None}})
    )


def inventory(devices: Sequence[DeviceInfo]) -> Inventory:
    gpus = tuple(DeviceInfo(one.name, one.memory_bytes, index=index) for index, one in enumerate(devices))
    return Inventory(gpus, 16)


def planned(batch: Batch, devices: Sequence[DeviceInfo]) -> Placement:
    return batch.forecasts(inventory(devices))[0].placement


def split(batch: Batch, devices: Sequence[DeviceInfo], decoders: int) -> Placement:
    """The last `decoders` devices decode, the others do all else."""
    demand, wishes, recipe = batch.demand(PRECISION), Wishes(), batch.family.recipe
    every = tuple(stage for stage in recipe.on_device if stage != "encode_image")
    others = tuple(stage for stage in every if stage != "decode")
    # One tiling for the batch: it decides pixels.
    tiled = demand.in_tiles(planned(batch, devices).tiling)
    number = len(devices) - decoders
    workers = tuple(
        worker_for(device, index, others if index < number else ("decode",), wishes, tiled, None)
        for index, device in enumerate(inventory(devices).gpus)
    )
    return in_waves(Placement(recipe, "pinned", workers, {}), wishes, lambda worker: DEFAULT_WAVE)


def run(batch: Batch, placement: Placement, slower: Mapping[str, float] = AS_KNOWN) -> Measured:
    costs, workers = batch.costs(PRECISION), {worker.worker_id: worker for worker in placement.workers}
    table: PredictedCosts = batch.costs(PRECISION)
    on_device = set(batch.family.recipe.on_device)

    def duration(assignment: Assignment) -> float:
        if assignment.stage not in on_device:
            return 0.0
        return pass_seconds(table, assignment, workers[assignment.worker_id]) * slower[assignment.stage]

    order = best_order(placement, batch.todo, costs)
    completions = list(
        simulate(
            placement, {name: batch.todo[name] for name in order.request_ids}, duration, costs, costs.swap_seconds,
            reorder=lambda scheduler: better_orders(scheduler, placement.workers, costs),
        )
    )  # fmt: skip
    bound = measured_bound(completions, placement.workers, batch.family.recipe, costs)
    by_stage = dict.fromkeys(on_device, 0.0)
    for completion in completions:
        if completion.assignment.stage in on_device:
            by_stage[completion.assignment.stage] += completion.finished - completion.started
    total, residencies = makespan(completions), sorted({worker.residency for worker in placement.workers})
    layout = f"{placement.layout}, {' and '.join(residencies)}"
    return Measured(layout, total, total / bound.seconds, by_stage["decode"] / sum(by_stage.values()))


def print_against_the_bound(flow: str, devices: int, batches: Sequence[Batch]) -> None:
    runs = [run(batch, planned(batch, [H100] * devices), SLOWER) for batch in batches]
    ratios = [one.ratio for one in runs]
    print(
        f"{flow:<9} {devices} x H100 {len(batches[0].requests):>4} clips: {runs[0].layout:<24} makespan / bound "
        f"{statistics.mean(ratios):.3f} mean {max(ratios):.3f} worst",
        flush=True,
    )


def print_gain(flow: str, names: str, batches: Sequence[Batch], before: Sequence[Placement], after: Any) -> None:
    """after: a batch's placement in which some devices only decode."""
    runs = [run(batch, placement) for batch, placement in zip(batches, before, strict=True)]
    others = [run(batch, after(batch)) for batch in batches]
    times = statistics.mean(other.seconds / one.seconds for one, other in zip(runs, others, strict=True))
    share = statistics.mean(one.decode for one in runs)
    print(
        f"{flow:<9} {names}: {others[0].layout}, against {runs[0].layout}: {times:.3f} times the makespan; decoding is "
        f"{share:.1%} of the work",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="one seed, a fourth of the clips")
    quick = parser.parse_args().quick
    seeds = range(1 if quick else 3)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = make_checkpoint("2.5", folder / "ltx25", tiny=False, holes=True)
        for flow in SIZES:

            def batches_of(num_clips: int, flow: str = flow) -> list[Batch]:
                return [batch_of(flow, num_clips, seed, model, folder) for seed in seeds]

            for devices in (1, 2, 4, 8):
                print_against_the_bound(flow, devices, batches_of(max(4, 16 * devices // (4 if quick else 1))))
            batches = batches_of(8 if quick else 32)
            alone = [planned(batch, [H100]) for batch in batches]
            for card in (L40S, RTX_4090):
                cards = [H100, card]
                decodes = partial(split, devices=cards, decoders=1)
                print_gain(flow, f"H100, and {card.name} that decodes, against the H100", batches, alone, decodes)
            for devices in (2, 4, 8):
                cards = [H100] * devices
                whole = [planned(batch, cards) for batch in batches]
                decodes = partial(split, devices=cards, decoders=1)
                print_gain(flow, f"{devices} x H100, one of them for decoding", batches, whole, decodes)


if __name__ == "__main__":
    main()
