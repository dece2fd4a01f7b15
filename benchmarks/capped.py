"""Renders whole batches on simulated cards of 6 to 24 GB, some with less memory than planned. Needs no GPU.

    python benchmarks/capped.py [--caps 24 16 12 8 6] [--models 0.9.5 0.9.8-13b-dev] [--clips 4]

The card is `tests/cuda/capped_card.py`: the real worker runs the real classes at full size on tensors without data,
whose storages come from the simulated allocator. Each batch is planned as `ltx-dist plan` plans it, and rendered three
times: on the card that it was planned for; with 5 % less memory than the plan needs (if the first run held more than
that); and with 5 % less than the first run held, where memory certainly runs out. Every clip must end. No fallback may
be taken where there is enough memory, and after the first shortage, weights may be read at most once per clip.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "cuda"))
from capped_card import CappedCard, Runs
from sparse import save_sparse_checkpoint

from ltx_dist.checkpoints.checkpoint import open_checkpoint
from ltx_dist.engine.loop import BatchLoop
from ltx_dist.inputs.config import RenderConfig
from ltx_dist.models.ltx_video.presets import preset_for
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.placement.fitting import CUDA_CONTEXT, DRIVER_RESERVE
from ltx_dist.placement.inventory import DeviceInfo, Inventory
from ltx_dist.run.batch import Batch
from ltx_dist.scheduling.scheduler import Scheduler
from ltx_dist.worker.local_executor import LocalExecutor
from ltx_dist.worker.spec import WorkerSpec

HOST_BYTES = 64 * 10**9
SHAPE = (480, 704, 121)
STEPS = 2
"""Denoising steps; each takes the same memory."""


@dataclass(frozen=True)
class Rendered:
    """Outcome of a batch. held: the most bytes of the card in use at once, CUDA's and the driver's included.

    fallbacks: by stage, one entry per clip in the order in which they ended. reads: how often each component was read,
    before and after the first shortage.
    """

    worker: Worker
    held: int
    statuses: tuple[str, ...]
    fallbacks: dict[str, list[str | None]]
    reads: tuple[Counter[str], Counter[str]]
    notices: tuple[str, ...]
    errors: tuple[str, ...]
    retries: int

    @property
    def reads_per_clip(self) -> float:
        """Reads per clip of the component that was read most often, counted after the first shortage."""
        return max(self.reads[1].values(), default=0) / len(self.statuses)


def requests_of(number: int, shape: tuple[int, int, int]) -> tuple[RenderRequest, ...]:
    # The clips set their timesteps: diffusers computes its default ones as tensors and reads their values, which
    # these tensors do not have.
    return tuple(
        RenderRequest(
            f"clip{index}", f"prompt {index}", "", *shape, 25.0, STEPS, 3.0, 0.0, index, 0.05, 0.025, 256,
            timesteps=(1000.0, 500.0),
        )
        for index in range(number)
    )  # fmt: skip


def batch_of(folder: Path, version: str, number: int, shape: tuple[int, int, int] = SHAPE) -> Batch:
    """A batch for the checkpoint in `folder`, which is made there if it is missing."""
    if not folder.exists():
        save_sparse_checkpoint(folder, version)
    checkpoint = open_checkpoint(str(folder))
    config = RenderConfig.model_validate({"placement": {"layout": "shared", "device": "cuda"}})
    return Batch(config, checkpoint, preset_for(version, checkpoint), requests_of(number, shape))


def planned(batch: Batch, board_bytes: int) -> Placement:
    """The placement of the batch on one card of this size. Raises ValueError if the batch does not fit."""
    return batch.placement(Inventory((DeviceInfo("a card", board_bytes),), 16, HOST_BYTES))


def rendered(batch: Batch, placement: Placement, board_bytes: int, runs: Runs) -> Rendered:
    """The outcome of the batch, placed by `placement`, on a card with `board_bytes` of memory."""
    worker = replace(placement.workers[0], capacity=board_bytes)
    placement = replace(placement, workers=(worker,))
    with pytest.MonkeyPatch.context() as monkeypatch:
        card = CappedCard(board_bytes, monkeypatch, runs)
        spec = WorkerSpec(worker, batch.checkpoint, "bfloat16", batch.mp4_settings, batch.storage("bfloat16"))
        executor = LocalExecutor([spec], card.worker)
        notices: list[str] = []
        loop = BatchLoop(Scheduler(placement, batch.costs("bfloat16")), executor, on_notice=notices.append)
        results = list(loop.render(batch.requests))
        executor.shutdown()
    fallbacks: dict[str, list[str | None]] = {}
    for completion in loop.completions:
        fallbacks.setdefault(completion.assignment.stage, []).append(completion.report.fallback)
    return Rendered(
        worker,
        card.peak_reserved + CUDA_CONTEXT + DRIVER_RESERVE,
        tuple(result.status for result in results),
        fallbacks,
        card.reads,
        tuple(notices),
        tuple(sorted({str(result.error).splitlines()[0] for result in results if result.error})),
        card.allocator.retries,
    )


def rows(caps: list[float], models: list[str], clips: int) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        for version in models:
            runs: Runs = {}
            batch = batch_of(Path(folder) / version, version, clips)
            for cap in caps:
                placement = planned(batch, int(cap * 1e9))
                fits = rendered(batch, placement, int(cap * 1e9), runs)
                yield _row(f"{cap:g} GB", version, "as planned", int(cap * 1e9), fits)
                short = int(0.95 * fits.worker.peak_bytes)
                if fits.held > short:  # otherwise, memory does not run out
                    yield _row(f"{cap:g} GB", version, "plan - 5 %", short, rendered(batch, placement, short, runs))
                out = CUDA_CONTEXT + DRIVER_RESERVE + int(0.95 * (fits.held - CUDA_CONTEXT - DRIVER_RESERVE))
                yield _row(f"{cap:g} GB", version, "held - 5 %", out, rendered(batch, placement, out, runs))


def _row(cap: str, version: str, what: str, board: int, found: Rendered) -> str:
    taken = "; ".join(
        f"{stage}: {', '.join(name or '-' for name in names)}" for stage, names in found.fallbacks.items() if any(names)
    )
    done = f"{found.statuses.count('done')} of {len(found.statuses)}"
    worker, sizes = found.worker, [board, found.worker.peak_bytes, found.held]
    residency = worker.residency + (f" ({', '.join(worker.streamed)})" if worker.streamed else "")
    error = f" **{'; '.join(found.errors)}**" if found.errors else ""
    return (
        f"| {cap} | {version} | {what} | {residency} | {' | '.join(f'{size / 1e9:.2f}' for size in sizes)} | {done} | "
        f"{taken or 'none'} | {found.reads_per_clip:g} | {found.retries} |{error}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--caps", type=float, nargs="+", default=[24, 16, 12, 8, 6])
    parser.add_argument("--models", nargs="+", default=["0.9.5", "0.9.8-13b-dev"])
    parser.add_argument("--clips", type=int, default=4)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    print(
        "| card | model | case | residency | GB | planned | held | done | fallbacks by clip | reads per clip "
        "| retries |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for row in rows(arguments.caps, arguments.models, arguments.clips):
        print(row, flush=True)


if __name__ == "__main__":
    main()
