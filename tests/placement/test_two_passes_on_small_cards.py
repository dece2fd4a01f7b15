"""Memory of 13B distilled as published, in two passes at 1216x704x121, on one small card: planned from headers alone.

`pytest -s` prints the figures of docs/benchmarks.md.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sparse

from ltx_dist.inputs.config import RenderConfig
from ltx_dist.placement.inventory import Inventory
from ltx_dist.placement.local_devices import with_described
from ltx_dist.run.batch import open_batch

CLIP = {"prompt": "p", "height": 704, "width": 1216, "num_frames": 121}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sparse")
    sparse.save_sparse_checkpoint(folder / "0.9.8-13b-distilled", "0.9.8-13b-distilled")
    sparse.save_sparse_upscaler(folder / "ltxv-spatial-upscaler-0.9.8.safetensors")
    return folder


@pytest.mark.parametrize(
    ("memory_gb", "precision"), [(24.0, "same"), (24.0, "float8"), (16.0, "same"), (16.0, "float8")]
)
def test_it_fits_in_two_passes(files: Path, tmp_path: Path, memory_gb: float, precision: str):
    (tmp_path / "rows.jsonl").write_text(json.dumps(CLIP))
    config = RenderConfig.model_validate(
        {
            "model": {
                "checkpoint": str(files / "0.9.8-13b-distilled"),
                "upscaler": str(files / "ltxv-spatial-upscaler-0.9.8.safetensors"),
                "transformer_storage": precision,
            },
            "placement": {"device": "cuda", "devices": 1, "memory_gb": memory_gb},
        }
    )
    batch = open_batch(str(tmp_path / "rows.jsonl"), config)
    inventory = with_described(Inventory((), 16, 64_000_000_000), "cuda", 1, memory_gb)
    best = batch.forecasts(inventory)[0]
    demand = batch.demand("bfloat16")
    (request,) = batch.requests
    (worker,) = best.placement.workers
    stages = {stage: demand.working_set(stage, worker.tiling) / 1e9 for stage in worker.stages}
    streamed = "".join(f", {component} by block" for component in worker.streamed)
    sizes = ", ".join(f"{stage} {size:.1f}" for stage, size in stages.items())
    print(f"\n{memory_gb:g} GB, transformer_storage={precision}: {worker.residency}{streamed}; {worker.tiling}")
    print(f"peak {worker.peak_bytes / 1e9:.1f} GB; {best.seconds:.0f} s; working sets in GB: {sizes}")
    assert batch.family.recipe.of(request)[-4:] == ("denoise", "refine", "decode", "encode_video")
    assert request.first_size == (448, 800) and request.decoded_size == (896, 1600)
    assert worker.capacity is not None and worker.peak_bytes <= worker.capacity <= memory_gb * 1e9
    assert best.seconds > 0
    assert stages["refine"] > stages["denoise"], "the second pass has four times the tokens"
