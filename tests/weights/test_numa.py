"""Page-locked memory is allocated by a thread that runs on the CPUs near the GPU, and then runs where it did before."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ltx_dist.weights import numa
from ltx_dist.weights.host_memory import HostBuffers
from ltx_dist.weights.numa import cpus_near, running_on

GPU = torch.device("cuda", 0)

needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")


def properties(monkeypatch: pytest.MonkeyPatch, **fields: int) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(**fields))


@pytest.mark.parametrize(("listed", "cpus"), [("0-2,8\n", {0, 1, 2, 8}), ("5\n", {5}), ("\n", set())])
def test_the_kernel_tells_the_cpus_near_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: str, cpus: set[int]
):
    properties(monkeypatch, pci_domain_id=1, pci_bus_id=0xC1, pci_device_id=0)
    monkeypatch.setattr(numa, "PCI_DEVICES", tmp_path)
    assert cpus_near(GPU) == set(), "the kernel does not list this GPU"
    (tmp_path / "0001:c1:00.0").mkdir()
    (tmp_path / "0001:c1:00.0" / "local_cpulist").write_text(listed)
    assert cpus_near(GPU) == cpus


def test_a_cpu_and_an_older_torch_have_none(monkeypatch: pytest.MonkeyPatch):
    assert cpus_near(torch.device("cpu")) == set()
    properties(monkeypatch, major=8)
    assert cpus_near(GPU) == set()


@needs_affinity
def test_slabs_are_allocated_on_the_cpus_near_the_gpu(monkeypatch: pytest.MonkeyPatch):
    allowed = os.sched_getaffinity(0)
    one, ran_on, empty = {max(allowed)}, list[set[int]](), torch.empty

    def allocate(size: int, *, dtype: torch.dtype, pin_memory: bool) -> torch.Tensor:
        ran_on.append(os.sched_getaffinity(0))
        return empty(size, dtype=dtype)

    monkeypatch.setattr(torch, "empty", allocate)
    HostBuffers([1000], pin=True, near=one)[0]
    assert ran_on == [one] and os.sched_getaffinity(0) == allowed


@needs_affinity
def test_a_thread_stays_within_its_own_cpus():
    allowed = os.sched_getaffinity(0)
    beyond = max(allowed) + 1
    with running_on({beyond}):
        assert os.sched_getaffinity(0) == allowed
    with pytest.raises(MemoryError), running_on({min(allowed), beyond}):
        assert os.sched_getaffinity(0) == {min(allowed)}
        raise MemoryError
    assert os.sched_getaffinity(0) == allowed
