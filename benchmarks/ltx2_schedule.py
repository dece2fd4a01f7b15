"""Simulates batches of LTX-2.5 on H100s: how close to the bound they come, and what a card only for decoding gains.

    python benchmarks/ltx2_schedule.py [--quick]

The real placement and scheduler run on a virtual clock, on headers of full size; no GPU or Ray is needed. A stage takes
its operations divided by an H100's rates (models/ltx2/estimates.py). For the comparison with the bound, these seconds
are multiplied by factors that the cost model is not told and has to learn. The sizes of the clips are drawn at random,
with three seeds. Swaps of weights take as long as the link needs for their bytes. The overlap of the decoder's tiles,
which is computed twice, is not counted.

The layouts are the planner's own choice; one H100 that only decodes, while the others do the rest; and one H100 with a
smaller card that decodes, against the same H100 alone.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from virtual_clock import PRECISION, SLOWER, Simulated, simulated

from ltx_dist.inputs.config import RenderConfig
from ltx_dist.pipeline.worker import Placement
from ltx_dist.placement.inventory import DeviceInfo, Inventory
from ltx_dist.placement.placement import Wishes, worker_for
from ltx_dist.placement.waves import DEFAULT_WAVE, in_waves
from ltx_dist.planning.ordering import best_order
from ltx_dist.run.batch import Batch, open_batch

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))
from make_ltx2_checkpoint import make_checkpoint  # noqa: E402

GB = 10**9
H100 = DeviceInfo("NVIDIA H100 80GB HBM3", 80 * GB)
L40S, RTX_4090 = DeviceInfo("NVIDIA L40S", 48 * GB), DeviceInfo("NVIDIA GeForce RTX 4090", 24 * GB)
SIZES = {"distilled": [(1216, 704), (1536, 1024), (1920, 1088)], "guided": [(768, 512), (1216, 704), (1536, 1024)]}
"""Widths and heights by flow. All clips have 121 frames."""

GUIDED = {
    "recipe": "one_pass", "guidance_scale": 3, "stg_scale": 1, "modality_scale": 3, "audio_guidance_scale": 7,
    "audio_stg_scale": 1, "audio_modality_scale": 3, "spatio_temporal_guidance_blocks": [28],
    "sigmas": [1 - step / 30 for step in range(30)],
}  # fmt: skip


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
    """A placement in which the last `decoders` devices decode, and the others do everything else."""
    demand, wishes, recipe = batch.demand(PRECISION), Wishes(), batch.family.recipe
    every = tuple(stage for stage in recipe.on_device if stage != "encode_image")
    others = tuple(stage for stage in every if stage != "decode")
    # All devices use the same tiling, because it affects pixels.
    tiled = demand.in_tiles(planned(batch, devices).tiling)
    number = len(devices) - decoders
    workers = tuple(
        worker_for(device, index, others if index < number else ("decode",), wishes, tiled, None)
        for index, device in enumerate(inventory(devices).gpus)
    )
    return in_waves(Placement(recipe, "pinned", workers, {}), wishes.wave, lambda worker: DEFAULT_WAVE)


def run(batch: Batch, placement: Placement, slower: Mapping[str, float] | None = None) -> Simulated:
    order = best_order(placement, batch.todo, batch.costs(PRECISION))
    return simulated(batch, placement, order.request_ids, slower)


def decode_share(run: Simulated) -> float:
    """The share of decoding in all work."""
    seconds = [(one.assignment.stage, one.finished - one.started) for one in run.completions]
    return sum(took for stage, took in seconds if stage == "decode") / sum(took for _, took in seconds)


def layout_of(placement: Placement) -> str:
    residencies = sorted({worker.residency for worker in placement.workers})
    return f"{placement.layout}, {' and '.join(residencies)}"


def print_against_the_bound(flow: str, devices: int, batches: Sequence[Batch]) -> None:
    placements = [planned(batch, [H100] * devices) for batch in batches]
    runs = [run(batch, placement, SLOWER) for batch, placement in zip(batches, placements, strict=True)]
    ratios = [one.seconds / one.bound for one in runs]
    print(
        f"{flow:<9} {devices} x H100 {len(batches[0].requests):>4} clips: {layout_of(placements[0]):<24} "
        f"makespan / bound {statistics.mean(ratios):.3f} mean {max(ratios):.3f} worst",
        flush=True,
    )


def print_gain(
    flow: str, names: str, batches: Sequence[Batch], before: Sequence[Placement], after: Callable[[Batch], Placement]
) -> None:
    """Print how much devices that only decode gain. after: makes a batch's placement with such devices."""
    decoded = [after(batch) for batch in batches]
    runs = [run(batch, placement) for batch, placement in zip(batches, before, strict=True)]
    others = [run(batch, placement) for batch, placement in zip(batches, decoded, strict=True)]
    times = statistics.mean(other.seconds / one.seconds for one, other in zip(runs, others, strict=True))
    share = statistics.mean(decode_share(one) for one in runs)
    print(
        f"{flow:<9} {names}: {layout_of(decoded[0])}, against {layout_of(before[0])}: {times:.3f} times the "
        f"makespan; decoding is {share:.1%} of the work",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="one seed, a quarter of the clips")
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
                print_gain(flow, f"H100 with {card.name} for decoding, against the H100", batches, alone, decodes)
            for devices in (2, 4, 8):
                cards = [H100] * devices
                whole = [planned(batch, cards) for batch in batches]
                decodes = partial(split, devices=cards, decoders=1)
                print_gain(flow, f"{devices} x H100, one of them for decoding", batches, whole, decodes)


if __name__ == "__main__":
    main()
