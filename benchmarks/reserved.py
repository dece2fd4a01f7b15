"""Simulates how many bytes torch's caching allocator reserves for each stage at full size, against what is planned.

    python benchmarks/reserved.py [configs encode denoise decode]

The real classes run on fake tensors, and each storage goes through a simulated allocator (see
`tests/cuda/caching_allocator.py`). A convolution in 16 bits takes copies of its input and output as workspace, which is
the most that cuDNN takes. `planned` is the formula of `working_sets.py` times the stage's margin on CUDA. It should be
1 to 1.25 times what is reserved; a line that misses this says so. `configs` plans every profile with every version, and
compares the planned peak of the fullest device with the simulated one: its reserve, its weights, and the stage that
reserves most.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "cuda"))
import working_sets as counted
from caching_allocator import Allocations, CachingAllocator, convolution_workspace
from sparse import save_sparse_checkpoint

from ltx_dist.checkpoints.versions import ARCHITECTURES, read_config
from ltx_dist.estimates.working_sets import decode_bytes, denoise_bytes, encode_text_bytes
from ltx_dist.inputs.config_file import load_config
from ltx_dist.inputs.profile import profiles
from ltx_dist.models.ltx_video.estimates import MARGIN
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import UNTILED, DecodeTiling
from ltx_dist.placement.fitting import DEVICE_RESERVE
from ltx_dist.placement.inventory import DeviceInfo, Inventory
from ltx_dist.run.batch import open_batch

VERSIONS = (
    "0.9.5", "0.9.8-2b-distilled", "0.9.8-13b-dev", "0.9.8-13b-distilled", "0.9.0", "0.9.1", "0.9.6-dev",
    "0.9.6-distilled", "0.9.7-13b-dev", "0.9.7-13b-distilled",
)  # fmt: skip
LARGE_GB = 80
"""Memory of a card if the config does not say."""

MOST = 1.25
SHAPES = ((480, 704, 121), (704, 1216, 121), (512, 768, 97), (256, 256, 25))
TILINGS = (UNTILED, DecodeTiling(None, 56), DecodeTiling(576, 72), DecodeTiling(512, 64), DecodeTiling(320, 64))
BF16 = torch.bfloat16


def reserved(count: Callable[[], Any]) -> CachingAllocator:
    """The allocator after one of the counting functions of `working_sets.py` has run through it."""
    allocator = CachingAllocator()

    def through(call: Callable[[], Any]) -> int:
        with Allocations(allocator, "cpu", convolution_workspace):
            result = call()
        del result
        return allocator.peak_allocated

    plain, counted.peak_of = counted.peak_of, through
    try:
        count()
    finally:
        counted.peak_of = plain
    return allocator


Row = tuple[str, str, int, Callable[[], Any]]
"""Stage, case, bytes by formula, and the function of `working_sets.py` that counts the same."""


def rows(stages: list[str]) -> Iterator[Row]:
    if "encode" in stages:
        text = read_config("text_encoder")
        for tokens in (128, 256, 512):
            count = partial(counted.count_encode_text, text, tokens, BF16)
            yield "encode_text", f"{tokens} tokens", encode_text_bytes(text, tokens, 2), count
    if "denoise" in stages:
        for name, shape, guidance in product(("transformer-2b", "transformer-13b"), SHAPES, (3.0, 1.0)):
            config, request = read_config(name), counted.example(*shape, guidance)
            count = partial(counted.count_denoise, config, request, BF16)
            formula = denoise_bytes(config, request, counted.RATIOS, 2)
            yield "denoise", f"{name} {_named(shape)} guidance {guidance:g}", formula, count
    if "decode" in stages:
        for name, shape in product(("vae-0.9.0", "vae-0.9.1", "vae-0.9.5"), SHAPES[:3]):
            for tiling in TILINGS if name == "vae-0.9.5" else TILINGS[:2]:
                config, request = read_config(name), counted.example(*shape)
                count = partial(counted.count_decode, config, request, BF16, tiling)
                what = f"{name} {_named(shape)} tiles {tiling.tile_size or '-'} px {tiling.tile_frames or '-'} frames"
                yield "decode", what, decode_bytes(config, request, 2, tiling), count


def _named(shape: tuple[int, int, int]) -> str:
    return f"{shape[1]}x{shape[0]}x{shape[2]}"


def config_rows() -> Iterator[str]:
    """One line of a table for each profile and version, for the device with the highest planned peak."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "prompts.txt").write_text("a red circle\n")
        for version in VERSIONS:
            checkpoint = save_sparse_checkpoint(root / version, version)
            for name, path in profiles().items():
                if name != "demo":
                    yield _config_row(path, version, [f"model.checkpoint={checkpoint}"], str(root / "prompts.txt"))


def _config_row(path: Path, version: str, settings: list[str], prompts: str) -> str:
    batch = open_batch(prompts, load_config(path, settings))
    wishes = batch.config.placement
    device = DeviceInfo("described", int((wishes.memory_gb or LARGE_GB) * 1e9))
    placement = batch.placement(Inventory((device,) * (wishes.devices or 1), 16))
    worker = max(placement.workers, key=lambda worker: worker.peak_bytes)
    request, models = batch.requests[0], batch.demand(batch.precision(Inventory((device,), 16))).models
    held, peaks = models.components(worker.stages), list[int]()
    for stage in worker.stages:
        if worker.residency != "resident":
            held = models.components([stage])
        weights = sum(models.streamed_bytes(name) if name in worker.streamed else models.weights[name] for name in held)
        peaks.append(weights + _stage_reserved(stage, version, request, worker.tiling))
    reserved_bytes = DEVICE_RESERVE["cuda"] + max(peaks)
    ratio = worker.peak_bytes / reserved_bytes
    missed = "" if 1 <= ratio <= MOST else " **missed**"
    sizes = " | ".join(f"{size / 1e9:.2f}" for size in (reserved_bytes, worker.peak_bytes))
    return f"| {path.stem} | {version} | {worker.residency} | {sizes} | {ratio:.2f}{missed} |"


@cache
def _reserved_of(stage: str, config: str, guided: bool, tiling: DecodeTiling, shape: tuple[int, int, int, int]) -> int:
    request = counted.example(*shape[:3], 3.0 if guided else 1.0, shape[3])
    count: Callable[[], Any] = partial(counted.count_decode, read_config(config), request, BF16, tiling)
    if stage == "encode_text":
        count = partial(counted.count_encode_text, read_config(config), shape[3], BF16)
    if stage == "denoise":
        count = partial(counted.count_denoise, read_config(config), request, BF16)
    return reserved(count).peak_reserved


def _stage_reserved(stage: str, version: str, request: RenderRequest, tiling: DecodeTiling) -> int:
    architecture = ARCHITECTURES[version]
    shape = request.height, request.width, request.num_frames, request.max_sequence_length
    if stage == "encode_text":
        return _reserved_of(stage, architecture.text_encoder, False, UNTILED, shape)
    if stage == "denoise":
        return _reserved_of(stage, architecture.transformer, request.guidance_scale > 1, UNTILED, shape)
    return _reserved_of(stage, architecture.vae, False, tiling, shape)


def main() -> None:
    stages = sys.argv[1:] or ["configs", "encode", "denoise", "decode"]
    if "configs" in stages:
        print("| profile | version | residency | reserved | planned | planned / reserved |\n|---|---|---|---|---|---|")
        for row in config_rows():
            print(row, flush=True)
    if stages == ["configs"]:
        return
    print("| stage | case | tensors | reserved | planned | planned / reserved |\n|---|---|---|---|---|---|")
    for stage, what, formula, count in rows(stages):
        allocator = reserved(count)
        planned = formula * MARGIN[stage]["cuda"]
        ratio = planned / allocator.peak_reserved
        missed = "" if 1 <= ratio <= MOST else " **missed**"
        sizes = " | ".join(f"{size / 1e9:.2f}" for size in (allocator.peak_allocated, allocator.peak_reserved, planned))
        print(f"| {stage} | {what} | {sizes} | {ratio:.2f}{missed} |", flush=True)


if __name__ == "__main__":
    main()
