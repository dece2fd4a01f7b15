"""Memory really runs out: whole batches on a card of a few GB, through the real worker and its fallbacks.

The networks have 4 blocks each, so that they are made quickly; `benchmarks/capped.py` does the same with all blocks.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import sparse
from capped_card import RecordingAllocator, Runs

from ltx_dist.checkpoints.versions import read_config
from ltx_dist.pipeline.worker import Placement
from ltx_dist.placement.fitting import CUDA_CONTEXT, DRIVER_RESERVE
from ltx_dist.run.batch import Batch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import capped  # noqa: E402

AsPlanned = Callable[[float], tuple[Placement, capped.Rendered]]

CLIPS = 4
GONE = CUDA_CONTEXT + DRIVER_RESERVE


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    def shallow(name: str) -> dict[str, Any]:
        config = read_config(name)
        return config | {"num_layers": 4} if "num_layers" in config else config

    folder = tmp_path_factory.mktemp("sparse") / "0.9.5"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sparse, "read_config", shallow)
        sparse.save_sparse_checkpoint(folder, "0.9.5")
    return capped.batch_of(folder, "0.9.5", CLIPS, (256, 256, 25))


@pytest.fixture(scope="module", autouse=True)
def imports_stay() -> Iterator[None]:
    """Freeze what is imported: a worker collects garbage whenever memory runs out, and need not scan all of that."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def runs() -> Runs:
    """What stages take, recorded once for all tests, because it does not depend on the card."""
    return {}


@pytest.fixture(scope="module")
def as_planned(batch: Batch, runs: Runs) -> AsPlanned:
    """A function that returns how the batch is placed on a card of this many GB, and how it ends there."""

    @cache
    def render(board: float) -> tuple[Placement, capped.Rendered]:
        placement = capped.planned(batch, int(board * 1e9))
        return placement, capped.rendered(batch, placement, int(board * 1e9), runs)

    return render


@pytest.mark.parametrize(("board", "residency"), [(8.0, "resident"), (2.9, "time_sliced")])
def test_what_is_planned_fits_and_what_is_missing_costs_one_fallback(
    batch: Batch, runs: Runs, as_planned: AsPlanned, board: float, residency: str
) -> None:
    placement, fits = as_planned(board)
    assert fits.worker.residency == residency
    assert fits.statuses == ("done",) * CLIPS and fits.retries == 0 and fits.held <= fits.worker.peak_bytes
    assert not any(name for names in fits.fallbacks.values() for name in names), "as planned"
    short = capped.rendered(batch, placement, GONE + int(0.95 * (fits.held - GONE)), runs)
    assert short.statuses == ("done",) * CLIPS, short.errors
    taken = {stage: [name for name in names if name] for stage, names in short.fallbacks.items()}
    assert sum(map(len, taken.values())) == 1, "one clip has it in its record, and the others find room"
    assert short.reads_per_clip <= 1


def test_what_is_planned_to_be_streamed_fits(batch: Batch, as_planned: AsPlanned) -> None:
    _, fits = as_planned(2.75)
    assert fits.worker.streamed == ("text_encoder",)
    assert fits.statuses == ("done",) * CLIPS and fits.retries == 0 and fits.held <= fits.worker.peak_bytes
    with pytest.raises(ValueError, match=r"streamed needs at least 2\.5 GB .* for decode"):
        capped.planned(batch, GONE + int(0.95 * (fits.held - GONE)))  # here, no tile would be small enough either


def test_an_empty_tensor_is_taken_and_given_back_again_too() -> None:
    allocator = RecordingAllocator(10**8)
    events = allocator.record()
    blocks = [allocator.malloc(size) for size in (0, 600)]
    for block in blocks:
        allocator.free(block)
    assert allocator.is_whole()
    allocator.recorded = None
    allocator.repeat(events)
    assert allocator.allocated == 0


def test_control_a_worker_that_forgets_in_place_of_evicting_reads_for_every_clip(
    batch: Batch, runs: Runs, as_planned: AsPlanned, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ltx_dist.worker.components import Components

    placement, fits = as_planned(8.0)
    monkeypatch.setattr(Components, "_send_away", Components._drop)
    short = capped.rendered(batch, placement, GONE + int(0.95 * (fits.held - GONE)), runs)
    assert short.reads[1].total() > 1
