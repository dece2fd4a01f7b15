"""Weights are copied while a stage computes: no access is left unordered, and a missing event is found."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from fake_streams import Watch, World, fake_streams
from torch.nn import Linear, ModuleList, Sequential

from ltx_dist.weights.residency import ResidentModule
from ltx_dist.weights.streaming import StreamedModule

CPU = torch.device("cpu")
X = torch.randn(64, 8)


class Chain(torch.nn.Module):
    def __init__(self, num_blocks: int) -> None:
        super().__init__()
        self.first = Linear(8, 8)
        self.blocks = ModuleList(Sequential(Linear(8, 16 + i), Linear(16 + i, 8)) for i in range(num_blocks))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return x


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return fake_streams(monkeypatch)


def streamed(num_blocks: int) -> tuple[Any, Any]:
    module = Chain(num_blocks)
    mover = StreamedModule(module, list(module.blocks), CPU)
    mover._copying = torch.cuda.Stream(CPU)
    return module, mover


def resident() -> tuple[Any, Any]:
    module = Chain(3)
    mover = ResidentModule(module, CPU)
    mover._stream = torch.cuda.Stream(CPU)
    return module, mover


def hazards(world: World) -> list[str]:
    gc.collect()
    return sorted(set(world.hazards))


@pytest.mark.parametrize("num_blocks", [1, 2, 3, 6])
def test_blocks_that_pass_through(world: World, num_blocks: int) -> None:
    module, mover = streamed(num_blocks)
    with torch.inference_mode(), Watch(world):
        for _ in range(2):
            mover.upload()
            for _ in range(3):
                module(X)
            mover.evict()
    assert hazards(world) == []


def test_weights_that_come_and_go(world: World) -> None:
    (module, mover), (other, other_mover) = resident(), resident()
    with torch.inference_mode(), Watch(world):
        for _ in range(2):
            mover.upload()
            other_mover.prefetch()
            module(X)
            module(X)
            mover.evict()
            other_mover.upload()
            mover.prefetch()
            other(X)
            other_mover.evict()
            mover.evict()  # it was prefetched, and leaves before it was used
    assert hazards(world) == []


@pytest.mark.parametrize("broken", [0, 2])
def test_a_pass_that_broke_off_and_the_next_one(world: World, broken: int) -> None:
    module, mover = streamed(5)

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("injected")

    with torch.inference_mode(), Watch(world):
        mover.upload()
        hook = module.blocks[broken][1].register_forward_pre_hook(fail)
        with pytest.raises(torch.OutOfMemoryError):
            module(X)
        hook.remove()
        module(X)
        mover.evict()
        mover.upload()
        module(X)
        mover.evict()
    assert hazards(world) == []


def test_a_streamed_component_is_evicted_before_it_is_forgotten(world: World) -> None:
    module, mover = streamed(4)
    with torch.inference_mode(), Watch(world):
        mover.upload()
        module(X)  # the first block of the next pass is being copied
        mover.evict()
        for hook in mover._hooks:
            hook.remove()
        del module, mover
        gc.collect()
    assert hazards(world) == []


def test_control_one_that_is_forgotten_while_a_block_is_on_its_way_is_found(world: World) -> None:
    module, mover = streamed(4)
    with torch.inference_mode(), Watch(world):
        mover.upload()
        module(X)
        for hook in mover._hooks:
            hook.remove()
        del module, mover
        gc.collect()
    assert any("are freed while" in hazard for hazard in hazards(world))


def test_control_a_slot_that_is_filled_while_it_is_read_is_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_event(self: Any, index: int) -> None:
        self._slot_of.pop(index)
        self._blocks[index].point_at(self._blocks[index].host)

    monkeypatch.setattr(StreamedModule, "_after", without_event)
    module, mover = streamed(4)
    with torch.inference_mode(), Watch(world):
        mover.upload()
        module(X)
        module(X)
    assert any("what main may still read" in hazard for hazard in hazards(world))


def test_control_weights_that_are_used_before_they_arrive_are_found(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, mover = resident()
    with torch.inference_mode(), Watch(world):
        mover.prefetch()
        module(X)
    assert any("what side" in hazard and "may still write" in hazard for hazard in hazards(world))
