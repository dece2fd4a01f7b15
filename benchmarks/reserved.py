"""What torch's caching allocator reserves for each stage at full size, simulated, against what is planned for it.

    python benchmarks/reserved.py [encode denoise decode]

The real classes run on fake tensors. Each storage goes through a model of the allocator in
`tests/cuda/caching_allocator.py`; a convolution in 16 bits takes copies of its input and output as workspace, as cuDNN
does at most. `planned` is the formula of `working_sets.py` times the stage's margin on CUDA: it should be at least what
is reserved, and at most 1.25 times that. A line that misses says so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "cuda"))
import working_sets as counted
from caching_allocator import Allocations, CachingAllocator, convolution_workspace

from ltx_dist.checkpoints.versions import read_config
from ltx_dist.estimates.working_sets import decode_bytes, denoise_bytes, encode_text_bytes
from ltx_dist.models.ltx_video.estimates import MARGIN
from ltx_dist.pipeline.storage import UNTILED, DecodeTiling

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
"""Stage, what, bytes by formula, and the function of `working_sets.py` that counts the same."""


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


def main() -> None:
    stages = sys.argv[1:] or ["encode", "denoise", "decode"]
    print("| stage | what | tensors | reserved | planned | planned / reserved |\n|---|---|---|---|---|---|")
    for stage, what, formula, count in rows(stages):
        allocator = reserved(count)
        planned = formula * MARGIN[stage]["cuda"]
        ratio = planned / allocator.peak_reserved
        missed = "" if 1 <= ratio <= MOST else " **missed**"
        sizes = " | ".join(f"{size / 1e9:.2f}" for size in (allocator.peak_allocated, allocator.peak_reserved, planned))
        print(f"| {stage} | {what} | {sizes} | {ratio:.2f}{missed} |", flush=True)


if __name__ == "__main__":
    main()
