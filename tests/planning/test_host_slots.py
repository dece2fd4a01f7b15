"""A fast device gets enough host slots not to wait for mp4s, within the host's cores and memory."""

from __future__ import annotations

from typing import Any

import pytest
from builders import GB, RECIPE, STAGES, WEIGHTS, D, V, make_request, placement, predicted, todo

from ltx_dist.estimates.costs import UniformCosts, Work
from ltx_dist.pipeline.worker import Worker
from ltx_dist.placement.fitting import BatchDemand, Models
from ltx_dist.placement.inventory import DeviceInfo, Inventory
from ltx_dist.placement.placement import Wishes
from ltx_dist.planning.host_slots import host_slots
from ltx_dist.planning.planner import forecasts

H100 = DeviceInfo("NVIDIA H100 80GB HBM3", 80 * GB)
RTX_3060 = DeviceInfo("NVIDIA GeForce RTX 3060", 12 * GB)
FULL = (1.19e12, 24e12 * 80, 52e12)
DISTILLED = (1.19e12, 24e12 * 8, 52e12)
SHAPE = make_request("a", height=480, width=704, num_frames=121)


def slots(gpus: list[DeviceInfo], work: Work, cores: int = 64, host_gb: float | None = None, **wishes: Any) -> set[int]:
    costs = predicted({f"r{number}": work for number in range(16)})
    inventory = Inventory(tuple(gpus), cores, None if host_gb is None else int(host_gb * GB))
    demand = BatchDemand(Models(RECIPE, WEIGHTS), (SHAPE,))
    best = forecasts(Wishes(**wishes), inventory, demand, todo(costs.work_of), costs)[0]
    return {worker.host_slots for worker in best.placement.workers}


def test_a_slow_clip_needs_two_and_a_fast_one_as_many_as_become_mp4s_meanwhile() -> None:
    assert slots([H100], FULL) == {2}
    assert slots([H100], DISTILLED) == {4}, "0.6 s on the device, 1.8 s of x264"
    assert slots([H100] * 8, DISTILLED, 48) == {3}, "six cores for each"


@pytest.mark.parametrize(("cores", "expected"), [(8, 4), (6, 3), (2, 2)])
def test_there_are_no_more_than_cores_for_them(cores: int, expected: int) -> None:
    assert slots([H100], DISTILLED, cores) == {expected}


def test_a_wave_is_decoded_clip_by_clip() -> None:
    assert slots([RTX_3060], FULL) == {2}, "decoding alone takes longer than an mp4"
    assert slots([RTX_3060], (1.19e12, 24e12 * 80, 5e12)) == {5}


def test_the_config_decides_if_it_says_so() -> None:
    assert slots([H100], DISTILLED, host_slots=1) == {1}


def test_the_work_of_the_clips_is_summed_once_for_all_workers() -> None:
    class Counting(UniformCosts):
        asked = 0

        def work(self, request_id: str, stage: str) -> float:
            self.asked += 1
            return 0.2

    def asked(num_workers: int) -> int:
        workers = (Worker(f"cuda:{n}", STAGES, "cuda", n, device_name="NVIDIA H100") for n in range(num_workers))
        placed, costs = placement(workers, {D: 6, V: 6}), Counting()
        slots_of = host_slots(placed, [SHAPE], todo("abcd"), costs, 64)
        assert {slots_of(worker) for worker in placed.workers} == {4}, "1.8 s of x264, 0.6 s on the device"
        return costs.asked

    assert asked(1) == asked(8) == 4 * len(STAGES)


def test_a_host_without_the_memory_keeps_two() -> None:
    assert slots([H100], DISTILLED, host_gb=1.9) == {2}, "1.5 GB for the process, 0.12 GB per clip"
    assert slots([H100], DISTILLED, host_gb=2.2) == {4}
    assert slots([], DISTILLED) == {2}, "on a CPU the device is the host"
