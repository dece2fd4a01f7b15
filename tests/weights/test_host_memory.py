"""HostBuffers: weights are cut from slabs whose sizes are powers of two, and little of those is left over."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ltx_dist.weights.host_memory import HostBuffers, plan_slabs
from ltx_dist.weights.residency import moved

T5_LAYER = [4096 * 4096 * 2] * 4 + [4096 * 10240 * 2] * 3 + [4096 * 2] * 2
T5_XXL = [32128 * 4096 * 2, 32 * 64 * 2, *T5_LAYER * 24, 4096 * 2]
BLOCKS_OF_13B = [(8 + 8) * 4096 * 4096 * 2 + 100_000] * 48
BLOCKS_OF_2B = [137_400_000] * 28


@pytest.mark.parametrize("sizes", [T5_XXL, BLOCKS_OF_13B, BLOCKS_OF_2B], ids=["T5-XXL", "13B", "2B"])
def test_little_is_left_over(sizes: list[int]) -> None:
    one_by_one = sum(1 << (size - 1).bit_length() for size in sizes)
    assert sum(plan_slabs(sizes).slab_bytes) <= 1.15 * sum(sizes) < one_by_one


@given(st.lists(st.integers(0, 3_000_000_000), max_size=40))
def test_items_lie_in_their_slab_and_beside_each_other(sizes: list[int]) -> None:
    plan = plan_slabs(sizes)
    ends = dict.fromkeys(range(len(plan.slab_bytes)), 0)
    for size, (slab, start) in zip(sizes, plan.places, strict=True):
        assert start >= ends[slab] and start % 256 == 0
        ends[slab] = start + size
    for slab, num_bytes in enumerate(plan.slab_bytes):
        assert ends[slab] <= num_bytes and num_bytes & (num_bytes - 1) == 0


def test_tensors_of_any_kind_are_the_same_in_their_buffers() -> None:
    tensors = [
        torch.randn(3, 5),
        torch.tensor(2.5, dtype=torch.bfloat16),
        torch.arange(12).reshape(3, 4).t(),
        torch.randn(7).to(torch.float8_e4m3fn),
        torch.empty(0, 4),
    ]
    buffers = HostBuffers([tensor.nbytes for tensor in tensors], pin=False)
    copies = [moved(tensor, buffers[index]) for index, tensor in enumerate(tensors)]
    for tensor, copy in zip(tensors, copies, strict=True):
        assert copy.dtype == tensor.dtype and torch.equal(copy.float(), tensor.float())
        assert copy.data_ptr() != tensor.data_ptr() or not tensor.numel()
