"""Nodes that join a cluster while a batch runs, and which ones are alive."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import ray

from ltx_dist.cluster.ray_cluster import free_gpus
from ltx_dist.placement.inventory import DeviceInfo

POLL_SECONDS = 3.0
"""Seconds between two checks of the list of nodes, each a short call to the head."""


class Nodes:
    """Looks for new nodes periodically; queries their GPUs in a thread, because a new node may take a minute."""

    def __init__(self, known: frozenset[str] | None = None) -> None:
        """known: nodes whose GPUs are counted already; None for all there are."""
        self._seen = {node["NodeID"] for node in ray.nodes()} if known is None else set(known)
        self._next_look = time.monotonic() + POLL_SECONDS
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nodes")
        self._asked: list[Future[list[DeviceInfo]]] = []

    def new_gpus(self) -> list[DeviceInfo]:
        """Free GPUs of nodes that joined; each is returned once. Does not wait."""
        if time.monotonic() >= self._next_look:
            self._look()
        done = [future for future in self._asked if future.done()]
        self._asked = [future for future in self._asked if future not in done]
        return [gpu for future in done for gpu in future.result()]

    def look_again(self, node_ids: Collection[str]) -> None:
        """Look again at nodes whose GPUs were not needed when they joined."""
        self._seen.difference_update(node_ids)

    def is_alive(self, node_id: str) -> bool:
        return any(node["NodeID"] == node_id and node["Alive"] for node in ray.nodes())

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _look(self) -> None:
        self._next_look = time.monotonic() + POLL_SECONDS
        new = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in self._seen]
        self._seen |= {node["NodeID"] for node in new}
        if new:
            self._asked.append(self._thread.submit(_free_gpus, new))


def _free_gpus(nodes: Sequence[dict[str, Any]]) -> list[DeviceInfo]:
    return [gpu for gpu in free_gpus(nodes) if gpu.node_id is not None]
