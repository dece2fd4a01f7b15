"""A Ray cluster: joining or starting one, what it has to give, and a GPU of it for each worker."""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ltx_dist.devices import local_inventory
from ltx_dist.execution.executor import WorkerStartError
from ltx_dist.execution.worker import WorkerSpec
from ltx_dist.scheduling.placement import Inventory

ANSWER_SECONDS = 5.0
"""A cluster's head that does not take a connection within this is not there."""

PLACE_SECONDS = 60.0
"""GPUs that are free are given at once; this leaves other work some time to end."""

NODE_SECONDS = 60.0
"""A node may have to start a Python process before it can answer."""


def check_address(address: str) -> None:
    """Raises ValueError, within seconds, when nothing listens there; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if "//" in address or not host or not port.isdigit():
        raise ValueError(
            f"--address: {address!r} is not HOST:PORT of a cluster's head (its port is 6379 if not chosen); "
            "an http:// address is for `ray job submit`"
        )
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        raise ValueError(f"--address: nothing answers at {address} ({error.strerror or error})") from None


def connect(address: str | None) -> Inventory:
    """Join the cluster at `address`, or start one on this machine if None, and say what it has to give now.

    Raises ValueError when the cluster does not answer or does not let us in. Handlers of signals stay as they are.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if address is None:
        # Ray turns its token on by itself, and warns of that with advice to turn it off.
        logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
        options |= {"address": "local", "include_dashboard": False}
    else:
        if address != "auto":
            check_address(address)
        options["address"] = address
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, RayError) as error:
        where = "Ray did not start on this machine" if address is None else f"--address: cannot join {address}"
        raise ValueError(f"{where}: {str(error).splitlines()[0]}") from None
    finally:
        signal.signal(signal.SIGTERM, handler)
    return _inventory()


def _inventory() -> Inventory:
    """Whole GPUs that are free now, the smallest one's bytes, and the CPUs of the smallest node."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    free = ray.available_resources().get("GPU", 0.0)
    num_cpus = min((int(node["Resources"].get("CPU", 1)) for node in nodes), default=1)
    return Inventory(int(free), _smallest_gpu_memory(nodes), max(1, num_cpus))


def _smallest_gpu_memory(nodes: Sequence[dict[str, Any]]) -> int | None:
    """Bytes, asked of every node that has GPUs; None when none of them can say."""
    ask = ray.remote(num_cpus=0, max_retries=0)(_gpu_memory)
    answers = [
        ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote()
        for node in nodes
        if node["Resources"].get("GPU", 0) > 0
    ]
    ready, _ = ray.wait(answers, num_returns=len(answers), timeout=NODE_SECONDS) if answers else ([], [])
    known = []
    for answer in ready:
        with suppress(RayError):  # a node that cannot answer says so when its worker starts
            known.append(ray.get(answer))
    return min((memory for memory in known if memory is not None), default=None)


def _gpu_memory() -> int | None:
    return local_inventory().gpu_memory_bytes


def disconnect() -> None:
    """Leave the cluster, and end it if `connect` started it."""
    ray.shutdown()


def reserve(specs: Sequence[WorkerSpec]) -> dict[str, PlacementGroup]:
    """A GPU for each worker that is to have one, each by itself: losing a node then loses its workers and no other.

    Raises WorkerStartError when the cluster cannot give them; without this the actors would wait in silence.
    """
    groups = {
        spec.worker.worker_id: placement_group([{"GPU": spec.worker.num_gpus}])
        for spec in specs
        if spec.worker.num_gpus > 0
    }
    deadline = time.monotonic() + PLACE_SECONDS
    missing = [name for name, group in groups.items() if not group.wait(max(0.0, deadline - time.monotonic()))]
    if missing:
        free = ray.available_resources().get("GPU", 0.0)
        for group in groups.values():
            remove_placement_group(group)
        raise WorkerStartError(
            f"the cluster had no GPU for {len(missing)} of {len(groups)} workers within {PLACE_SECONDS:.0f} s "
            f"({free:g} free now); wait for other work to end, or set placement.devices to {len(groups) - len(missing)}"
        )
    return groups
