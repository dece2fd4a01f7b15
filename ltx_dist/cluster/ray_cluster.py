"""Joins or starts a Ray cluster, reads its inventory, and reserves a GPU for each worker."""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import ray
from ray._private import utils as ray_utils
from ray._private.state import available_resources_per_node
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ltx_dist.engine.executor import WorkerStartError
from ltx_dist.environment import OURS, added
from ltx_dist.messages import first_line
from ltx_dist.pipeline.worker import Worker
from ltx_dist.placement.inventory import DeviceInfo, Inventory
from ltx_dist.placement.local_devices import local_inventory
from ltx_dist.worker.spec import WorkerSpec

PLACE_SECONDS = 60.0
"""Seconds to wait for GPUs: free ones are given at once; this leaves other work some time to end."""

NODE_SECONDS = 60.0
"""Seconds to wait for a node, which may have to start a Python process first."""


def connect(address: str | None) -> Inventory:
    """Join the cluster at `address`, or start one on this machine if None. Returns its current inventory.

    `check_head` comes first. Raises ValueError when the cluster cannot be joined. Handlers of signals stay as they are,
    and must not raise meanwhile: see `Stop`.
    """
    environment = {"RAY_USAGE_STATS_ENABLED": "0"}
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if address is None:
        # Ray enables its token by itself, and then warns with advice to turn it off.
        logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
        options |= {"address": "local", "include_dashboard": False}
        # Ray runs workers at niceness 15, behind everything else; but rendering is what the machine is for.
        environment |= {"RAY_worker_niceness": "0"} | OURS
    else:
        options["address"] = address
    try:
        with _handlers_stay(), added(environment):
            ray.init(**options)
    except (OSError, RuntimeError, RayError) as error:
        where = "Ray did not start on this machine" if address is None else f"cannot join {address}"
        raise ValueError(f"{where}: {why_not(error)}") from None
    return _inventory()


def joined(address: str | None) -> Inventory:
    """The inventory of the cluster that this process has joined. Raises ValueError if `address` is another one."""
    here = ray.get_runtime_context().gcs_address
    if address not in (None, "auto", here):
        raise ValueError(
            f"this process has joined the cluster at {here}; leave the address out, or call ray.shutdown()"
        )
    return _inventory()


@contextmanager
def _handlers_stay() -> Iterator[None]:
    """Keep `ray.init` from setting its two handlers for SIGTERM.

    The first is set in Python at the very start: a stop in the next seconds would exit with 15. It is not set at all,
    because restoring ours afterwards is too late, and blocking the signal would block it in the cluster's processes,
    too. The second is set in C++ (absl's failure handler), unknown to Python: it prints a stack, sets an alarm that
    aborts, and only then calls ours. So ours is set again afterwards.
    """
    original, ray_utils.set_sigterm_handler = ray_utils.set_sigterm_handler, lambda handler: None
    try:
        yield
    finally:
        ray_utils.set_sigterm_handler = original
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def _inventory() -> Inventory:
    """The GPUs that are free now, node by node, and the CPUs and memory of the smallest node that renders: where there
    are GPUs, a head without one holds no weights, and often has no CPUs either (KubeRay's)."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    hosts = [node for node in nodes if node["Resources"].get("GPU")] or nodes
    num_cpus = min((int(node["Resources"].get("CPU", 1)) for node in hosts), default=1)
    host_memory = min((int(node["Resources"].get("memory", 0)) for node in hosts), default=0)
    node_ids = frozenset(node["NodeID"] for node in nodes)
    return Inventory(tuple(free_gpus(nodes)), max(1, num_cpus), host_memory or None, node_ids)


def free_gpus(nodes: Sequence[dict[str, Any]]) -> list[DeviceInfo]:
    """Whole GPUs of these entries of `ray.nodes()` that nobody uses now.

    Which of a node's GPUs a worker gets is Ray's choice: on a node with several kinds each counts as one with the
    memory of the smallest and the compute capability of the oldest.
    """
    free = available_resources_per_node()
    counts = {node["NodeID"]: int(free.get(node["NodeID"], {}).get("GPU", 0)) for node in nodes}
    found: list[DeviceInfo] = []
    for node_id, device in _gpu_of_each_node([node_id for node_id, count in counts.items() if count]).items():
        found += [replace(device, node_id=node_id, index=index) for index in range(counts[node_id])]
    return found


def _gpu_of_each_node(node_ids: Sequence[str]) -> dict[str, DeviceInfo]:
    """What each GPU of a node can be relied on for, as the node reports it; of unknown memory if it cannot tell."""
    ask = ray.remote(num_cpus=0, max_retries=0)(weakest_gpu)
    answers = {
        node_id: ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)).remote()
        for node_id in node_ids
    }
    refs = list(answers.values())
    ready = set(ray.wait(refs, num_returns=len(refs), timeout=NODE_SECONDS)[0]) if refs else set()
    found = dict.fromkeys(node_ids, DeviceInfo("unknown GPU", None))
    for node_id, answer in answers.items():
        if answer in ready:
            with suppress(RayError):  # a node that cannot answer says so when its worker starts
                found[node_id] = ray.get(answer) or found[node_id]
    return found


def weakest_gpu() -> DeviceInfo | None:
    """The smallest of this node's GPUs, with the compute capability of the oldest; None without GPUs."""
    if not os.environ.get("CUDA_VISIBLE_DEVICES"):  # Ray hides all GPUs from a task that asked for none
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    gpus = local_inventory().gpus
    if not gpus:
        return None
    smallest = min(gpus, key=lambda gpu: gpu.memory_bytes or 0)
    capabilities = [gpu.compute_capability for gpu in gpus if gpu.compute_capability is not None]
    return replace(smallest, compute_capability=min(capabilities, default=None))


def disconnect() -> None:
    """Leave the cluster, and end it if `connect` started it."""
    ray.shutdown()


def reserve(specs: Sequence[WorkerSpec]) -> dict[str, PlacementGroup]:
    """Reserve a GPU for each worker that needs one, separately: losing a node then loses only its workers.

    Raises WorkerStartError if the cluster cannot provide them; otherwise the actors would wait silently.
    """
    groups = {spec.worker.worker_id: reserve_one(spec.worker) for spec in specs if spec.worker.num_gpus > 0}
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


def reserve_one(worker: Worker) -> PlacementGroup:
    """A reserved GPU on the worker's node; an actor that uses it waits in Ray until it is available."""
    on_its_node = {"ray.io/node-id": worker.node_id} if worker.node_id else {}
    return placement_group([{"GPU": worker.num_gpus}], bundle_label_selector=[on_its_node])


VERSIONS = re.compile(
    r"cluster was started with:\s+Ray: (\S+)\s+Python: (\S+).*started with:\s+Ray: (\S+)\s+Python: (\S+)", re.S
)


def why_not(error: Exception) -> str:
    """Explain in one line, with a remedy, why Ray did not start or join, from what `ray.init` raised.

    For a folder that cannot be used it names the folder and the variable that chooses another."""
    text = str(error)
    if versions := VERSIONS.search(text):
        ray, python, our_ray, our_python = versions.groups()
        return (
            f"it runs Ray {ray} with Python {python}, and this is Ray {our_ray} with Python {our_python}; "
            "both sides need the same Ray and the same minor version of Python"
        )
    if "home directory" in text:
        return "this user has no home folder for Ray's token; set HOME to a folder that you can write to"
    if "AF_UNIX" in text:
        return "the paths of its sockets would be too long; set RAY_TMPDIR to a short one, such as /tmp"
    if isinstance(error, OSError) and error.filename is not None:
        variable = "HOME" if "/.ray" in str(error.filename) else "RAY_TMPDIR"
        return f"{error.filename}: {error.strerror}; set {variable} to a folder that you can write to"
    return first_line(error)
