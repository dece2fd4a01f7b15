"""HostBuffers: weights are cut from slabs whose sizes are powers of two, and little of the slabs is left unused."""

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


class Host:
    """Gives `total` bytes of page-locked memory in pieces of at most `piece`, as WSL2 does, and records them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, total: int, piece: int) -> None:
        self._total, self._piece, self._empty = total, piece, torch.empty
        self.locked: list[int] = []
        self.ordinary: list[int] = []
        monkeypatch.setattr(torch, "empty", self._give)

    def _give(self, size: int, *, dtype: torch.dtype, pin_memory: bool) -> torch.Tensor:
        if pin_memory and (size > self._piece or sum(self.locked) + size > self._total):
            raise torch.AcceleratorError("CUDA error: out of memory")
        (self.locked if pin_memory else self.ordinary).append(size)
        return self._empty(size, dtype=dtype)


MIB = 1 << 20


def filled(sizes: list[int]) -> tuple[HostBuffers, list[str]]:
    reported: list[str] = []
    buffers = HostBuffers(sizes, pin=True, report=reported.append)
    made = [buffers[index].fill_(index) for index in range(len(sizes))]
    assert [int(buffer[0]) for buffer in made] == list(range(len(sizes))), "no buffer lies in another's memory"
    assert [buffer.nbytes for buffer in made] == sizes
    return buffers, reported


def test_page_locked_memory_that_is_refused_is_ordinary_memory_with_one_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, total=0, piece=1 << 40)
    buffers, reported = filled([40 * MIB] * 12)
    assert not host.locked and sum(host.ordinary) >= 480 * MIB and not buffers.is_locked
    assert len(reported) == 1 and "4 GB/s instead of 25" in reported[0] and "doctor" in reported[0]


def test_smaller_pieces_are_tried_before_ordinary_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, total=1 << 40, piece=256 * MIB)
    buffers, reported = filled([40 * MIB] * 24)
    assert buffers.is_locked and not host.ordinary and not reported
    assert host.locked and max(host.locked) == 256 * MIB


def test_what_there_is_of_page_locked_memory_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, total=512 * MIB, piece=256 * MIB)
    _, reported = filled([40 * MIB] * 24)
    assert sum(host.locked) == 512 * MIB and sum(host.ordinary) >= 12 * 40 * MIB and len(reported) == 1


def test_a_host_without_any_memory_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(torch, "empty", refuse)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        HostBuffers([MIB], pin=True, report=lambda line: None)[0]
