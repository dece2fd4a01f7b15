"""Measures how close batches that mix clips from text, from images and of two passes come to the lower bound.

    python benchmarks/mixed_kinds.py

The model is 0.9.8 13B distilled as published (true sizes, in sparse files), on 80 GB cards, in layouts that `plan`
compares. A third of the clips is made from text in one pass, a third from an image in one pass, and a third in two
passes, half of these from an image. Sizes and lengths are random, with 5 seeds. The scheduler runs on a virtual clock.
Stages take other times than the cost model's table says (SLOWER), which the cost model is not told and has to learn.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import PIL.Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import sparse  # noqa: E402
from virtual_clock import SLOWER, simulated  # noqa: E402

from ltx_dist.inputs.config import RenderConfig  # noqa: E402
from ltx_dist.placement.inventory import Inventory  # noqa: E402
from ltx_dist.placement.local_devices import with_described  # noqa: E402
from ltx_dist.run.batch import Batch, open_batch  # noqa: E402

VERSION = "0.9.8-13b-distilled"
UPSCALER = "ltxv-spatial-upscaler-0.9.8.safetensors"
SEEDS = range(5)
SIZES = ((480, 704), (512, 768), (704, 1216))


def draw_rows(count: int, rng: random.Random) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for index in range(count):
        height, width = rng.choice(SIZES)
        row = {"prompt": "p", "height": height, "width": width, "num_frames": rng.choice((49, 97, 121))}
        kind = ("text", "image", "two passes")[index % 3]
        if kind != "two passes":
            row["recipe"] = "one_pass"
        if kind == "image" or (kind == "two passes" and index % 2):
            row["image"] = "a.png"
        rows.append(row)
    return rows


def opened(folder: Path, rows: list[dict[str, Any]], layout: str, devices: int) -> Batch:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = RenderConfig.model_validate({
        "model": {"checkpoint": str(folder / VERSION), "upscaler": str(folder / UPSCALER)},
        "placement": {"device": "cuda", "devices": devices, "memory_gb": 80.0, "layout": layout},
    })  # fmt: skip
    return open_batch(str(folder / "rows.jsonl"), config)


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sparse.save_sparse_checkpoint(folder / VERSION, VERSION)
        sparse.save_sparse_upscaler(folder / UPSCALER)
        PIL.Image.new("RGB", (1216, 704)).save(folder / "a.png")
        for layout, devices, clips in (
            ("pinned", 3, 48), ("pinned", 4, 64), ("pinned", 8, 128), ("replicated", 2, 32), ("replicated", 4, 64),
            ("replicated", 8, 128),
        ):  # fmt: skip
            ratios = []
            for seed in SEEDS:
                batch = opened(folder, draw_rows(clips, random.Random(seed)), layout, devices)
                inventory = with_described(Inventory((), 16, 512_000_000_000), "cuda", devices, 80.0)
                best = batch.forecasts(inventory)[0]
                run = simulated(batch, best.placement, best.order.request_ids, SLOWER)
                ratios.append(run.seconds / run.bound)
            print(
                f"{layout:<11} {devices} devices {clips:>4} clips   makespan / bound "
                f"{statistics.mean(ratios):.3f} mean {max(ratios):.3f} worst",
                flush=True,
            )


if __name__ == "__main__":
    main()
