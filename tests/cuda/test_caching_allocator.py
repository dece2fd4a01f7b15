"""The simulated allocator follows torch's rules, and plans cover what it reserves for stages at full size."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from caching_allocator import MIB, Allocations, CachingAllocator, convolution_workspace, rounded, segment_of

from ltx_dist.checkpoints.versions import ARCHITECTURES, read_config
from ltx_dist.estimates.parameters import largest_layer_parameters
from ltx_dist.estimates.working_sets import decode_bytes, denoise_bytes, encode_text_bytes
from ltx_dist.models.ltx2 import estimates as ltx2_estimates
from ltx_dist.models.ltx_video.estimates import MARGIN
from ltx_dist.models.ltx_video.recipes import RECIPE
from ltx_dist.pipeline.storage import UNTILED
from ltx_dist.placement.fitting import Models
from ltx_dist.weights.streaming import StreamedModule

sys.path[:0] = [str(Path(__file__).parents[2] / folder) for folder in ("benchmarks", "tools", "tests/models/ltx2")]
import reserved  # noqa: E402
import working_sets as counted  # noqa: E402
from ltx2_configs import FULL  # noqa: E402
from tiny_ltx2 import call_transformer  # noqa: E402

BF16 = torch.bfloat16


@pytest.mark.parametrize(("asked", "size"), [(1, 512), (512, 512), (513, 1024), (MIB + 1, MIB + 512)])
def test_requests_are_rounded_to_512_bytes(asked: int, size: int) -> None:
    assert rounded(asked) == size


@pytest.mark.parametrize(
    ("size", "segment"),
    [(512, 2), (MIB, 2), (MIB + 512, 20), (10 * MIB - 512, 20), (10 * MIB, 10), (11 * MIB, 12), (33 * MIB, 34)],
)
def test_segments_are_of_2_and_20_mib_and_of_ones_own(size: int, segment: int) -> None:
    assert segment_of(size) == segment * MIB
    allocator = CachingAllocator()
    allocator.malloc(size)
    assert allocator.reserved == segment * MIB and allocator.allocated >= size


def test_two_matrices_of_8_mib_leave_4_of_20_unused() -> None:
    allocator = CachingAllocator()
    for _ in range(10):
        allocator.malloc(8 * MIB)
    assert allocator.allocated == 80 * MIB and allocator.reserved == 100 * MIB


def test_a_large_block_whose_rest_is_at_most_1_mib_is_taken_whole() -> None:
    allocator = CachingAllocator()
    allocator.free(allocator.malloc(30 * MIB))
    block = allocator.malloc(29 * MIB)
    assert block.size == 30 * MIB and allocator.reserved == 30 * MIB


def test_neighbours_that_are_free_become_one_block_again() -> None:
    allocator = CachingAllocator()
    first, second = allocator.malloc(4 * MIB), allocator.malloc(4 * MIB)
    third = allocator.malloc(4 * MIB)
    allocator.free(first)
    allocator.free(third)
    allocator.free(second)
    assert allocator.allocated == 0
    assert allocator.malloc(20 * MIB - 512).size == 20 * MIB and allocator.reserved == 20 * MIB


def test_the_smallest_block_that_is_large_enough_is_taken() -> None:
    allocator = CachingAllocator()
    large, small = allocator.malloc(40 * MIB), allocator.malloc(30 * MIB)
    allocator.free(large)
    allocator.free(small)
    assert allocator.malloc(30 * MIB) is small


def test_where_the_device_has_no_more_free_segments_are_returned_and_it_is_tried_once_more() -> None:
    allocator = CachingAllocator(capacity=100 * MIB)
    allocator.free(allocator.malloc(60 * MIB))
    allocator.malloc(80 * MIB)
    assert allocator.retries == 1 and allocator.reserved == 80 * MIB
    with pytest.raises(torch.OutOfMemoryError, match=r"Tried to allocate 30\.00 MiB"):
        allocator.malloc(30 * MIB)
    assert allocator.reserved == 80 * MIB


def test_a_segment_of_which_a_part_is_in_use_stays() -> None:
    allocator = CachingAllocator()
    kept, gone = allocator.malloc(4 * MIB), allocator.malloc(4 * MIB)
    allocator.free(gone)
    allocator.empty_cache()
    assert allocator.reserved == 20 * MIB
    allocator.free(kept)
    allocator.empty_cache()
    assert allocator.reserved == 0


def test_storages_take_memory_until_their_end_and_views_take_none() -> None:
    allocator = CachingAllocator()
    with Allocations(allocator, "cpu"):
        tensor = torch.empty(3 * MIB, dtype=torch.uint8)
        view = tensor[: 2 * MIB].view(2, MIB)
        assert allocator.allocated == 3 * MIB
        del tensor
        assert allocator.allocated == 3 * MIB, "the view holds it"
        del view
        assert allocator.allocated == 0 and allocator.peak_allocated == 3 * MIB


def test_a_convolution_of_16_bits_takes_a_workspace_while_it_runs() -> None:
    x, weight = torch.ones(1, 4, 4, 32, 32, dtype=BF16), torch.ones(4, 4, 3, 3, 3, dtype=BF16)
    allocator = CachingAllocator()
    with torch.inference_mode(), Allocations(allocator, "cpu", convolution_workspace):
        y = torch.nn.functional.conv3d(x, weight, padding=1)
    most = sum(rounded(size) for size in (y.nbytes, x.nbytes + weight.nbytes + y.nbytes))
    assert allocator.allocated == rounded(y.nbytes) and allocator.peak_allocated == most


def within(stage: str, formula: int, allocator: CachingAllocator) -> bool:
    """Whether the plan is at least what is reserved, and at most a quarter more."""
    return 1.0 <= formula * MARGIN[stage]["cuda"] / allocator.peak_reserved <= reserved.MOST


@pytest.mark.parametrize(
    ("name", "guidance"), [("transformer-2b", 3.0), ("transformer-2b", 1.0), ("transformer-13b", 3.0)]
)
def test_denoising_is_planned_with_what_the_allocator_reserves(name: str, guidance: float) -> None:
    config, request = read_config(name), counted.example(480, 704, 121, guidance)
    allocator = reserved.reserved(lambda: counted.count_denoise(config, request, BF16))
    formula = denoise_bytes(config, request, counted.RATIOS, 2)
    assert within("denoise", formula, allocator)
    assert formula * 1.1 < allocator.peak_reserved, (
        "a control: the margin that was planned with before is found too small"
    )


@pytest.mark.parametrize("name", sorted({version.vae for version in ARCHITECTURES.values()}))
def test_decoding_is_planned_with_at_least_what_the_allocator_reserves(name: str) -> None:
    """The VAE of every version, for one second of 704x480. Its margin is from published peaks (docs/benchmarks.md)."""
    config, request = read_config(name), counted.example(480, 704, 25)
    allocator = reserved.reserved(lambda: counted.count_decode(config, request, BF16, UNTILED))
    formula = decode_bytes(config, request, 2, UNTILED)
    assert allocator.peak_reserved <= formula * MARGIN["decode"]["cuda"] <= 2 * allocator.peak_reserved
    assert formula * 1.7 < allocator.peak_reserved, "a control: half of the margin is too small"


@pytest.mark.parametrize("tokens", [32, 128, 256, 512])
def test_encoding_a_prompt_is_planned_with_what_the_allocator_reserves(tokens: int) -> None:
    """Three layers suffice, because all hold the same. The plan may be over by more than a quarter, up to 0.1 GB."""
    text = read_config("text_encoder") | {"num_layers": 3}
    allocator = reserved.reserved(lambda: counted.count_encode_text(text, tokens, BF16))
    planned = encode_text_bytes(text, tokens, 2) * MARGIN["encode_text"]["cuda"]
    assert allocator.peak_reserved <= planned <= allocator.peak_reserved + 100e6


@pytest.mark.parametrize("is_streamed", [False, True])
def test_float8_is_planned_with_the_layers_that_are_cast(is_streamed: bool) -> None:
    """A pass of a real transformer on so few tokens that nearly all it holds are weights."""
    config: dict[str, Any] = {
        "num_layers": 6, "num_attention_heads": 4, "attention_head_dim": 64, "cross_attention_dim": 256,
        "caption_channels": 64, "in_channels": 16, "out_channels": 16,
    }  # fmt: skip
    model: Any = diffusers.LTXVideoTransformer3DModel(**config)
    model.to(BF16).eval().requires_grad_(False)
    model.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=BF16)
    weights = sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
    block = sum(tensor.nbytes for tensor in model.transformer_blocks[0].parameters())
    mover = StreamedModule(model, list(model.transformer_blocks), torch.device("cpu")) if is_streamed else None
    cast_layer = 2 * largest_layer_parameters(config)
    models = Models(RECIPE, {"t": weights}, {"t": block}, {"t": 6}, cast_layer={"t": cast_layer})
    allocator = CachingAllocator()
    with torch.inference_mode(), Allocations(allocator, "cpu"):
        if mover is not None:
            mover.upload()
        else:
            for tensor in [*model.parameters(), *model.buffers()]:
                tensor.data = tensor.data.clone()
        for _ in range(2):
            model(
                torch.zeros(1, 4, 16, dtype=BF16), torch.zeros(1, 2, 64, dtype=BF16), torch.ones(1), torch.ones(1, 2),
                num_frames=1, height=2, width=2,
            )  # fmt: skip
    planned = cast_layer + (models.streamed_bytes("t") if is_streamed else weights)
    assert 0.8 * planned <= allocator.peak_allocated <= 1.02 * planned
    before = replace(models, cast_layer={}).streamed_bytes("t") if is_streamed else weights
    assert allocator.peak_allocated > 1.05 * before, "a control: what was planned before is too little"


@pytest.mark.parametrize("per_token", [False, True], ids=["one timestep", "a timestep per token"])
@pytest.mark.parametrize("version", ["2.0", "2.3"])
def test_denoising_of_ltx2_is_planned_with_what_the_allocator_reserves(version: str, per_token: bool) -> None:
    """A clip of 768x512 and 121 frames with guidance, on two layers, because all are alike; 2.5 equals 2.3 here."""
    allocator = CachingAllocator()
    with counted.fake_tensors(BF16):
        model = diffusers.LTX2VideoTransformer3DModel(**FULL[version]["transformer"] | {"num_layers": 2}).eval()
        with Allocations(allocator, "cpu"):
            call_transformer(model, version, 16, 16, 24, 126, 1024, 2, per_token)
    planned = allocator.peak_allocated * ltx2_estimates.MARGIN["denoise"]["cuda"]
    assert 1.0 <= planned / allocator.peak_reserved <= (1.29 if per_token else 1.25)
