"""Places page-locked memory near its GPU. On a machine with several CPU sockets, each has memory and PCIe slots of its
own, and a copy to a GPU on another socket goes over the link between them, which is slower than the bus."""

from __future__ import annotations

import os
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path

import torch

PCI_DEVICES = Path("/sys/bus/pci/devices")


def cpus_near(device: torch.device) -> frozenset[int]:
    """The CPUs on the NUMA node of a GPU; empty if unknown, as with older versions of torch and on other systems."""
    if device.type != "cuda":
        return frozenset()
    found = torch.cuda.get_device_properties(device)
    try:
        address = f"{found.pci_domain_id:04x}:{found.pci_bus_id:02x}:{found.pci_device_id:02x}.0"
        return _parsed((PCI_DEVICES / address / "local_cpulist").read_text())
    except (AttributeError, OSError):
        return frozenset()


def _parsed(cpu_list: str) -> frozenset[int]:
    """The numbers in the kernel's format for lists of CPUs: `0-3,8` (Documentation/core-api/printk-formats)."""
    ranges = [part.split("-") for part in cpu_list.strip().split(",") if part]
    return frozenset(cpu for ends in ranges for cpu in range(int(ends[0]), int(ends[-1]) + 1))


@contextmanager
def running_on(cpus: Set[int]) -> Iterator[None]:
    """Keep the calling thread on these of its CPUs, so that memory it allocates is on their node. Does nothing if the
    thread may use none of them.

    Start no threads inside: they would stay on these CPUs.
    """
    allowed = os.sched_getaffinity(0) if cpus else set[int]()
    if not (chosen := allowed & cpus) or chosen == allowed:
        yield
        return
    os.sched_setaffinity(0, chosen)
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
