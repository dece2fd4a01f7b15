"""Prints Ray's version, or the inventory of the cluster at the given address, as JSON.

`doctor` runs it in a process of its own.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Any

from ltx_dist.cluster.cluster_head import check_head
from ltx_dist.cluster.given_address import given_by
from ltx_dist.cluster.job_server import check_job_server
from ltx_dist.messages import first_line


def look_at(address: str | None) -> dict[str, Any]:
    """Ray's version, or facts about the cluster at the address. Raises ValueError if it does not answer or let us
    in."""
    # Ray is imported late, because the checks may tell it to use a token, and only as far as is needed.
    if address is None:
        import ray

        return {"version": ray.__version__}
    if address.startswith(("http://", "https://")):
        server = check_job_server(address)
        from ltx_dist.cluster import ray_jobs

        return {"jobs": len(ray_jobs.list_jobs(ray_jobs.connect(server)))}
    if address != "auto":
        check_head(address)
    return _look_into(address)


def _look_into(address: str) -> dict[str, Any]:
    import ray

    from ltx_dist.cluster import ray_cluster

    inventory = ray_cluster.connect(address)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    kinds = Counter(f"{gpu.name}, {_size(gpu.memory_bytes)}" for gpu in inventory.gpus)
    gpus = int(sum(node["Resources"].get("GPU", 0) for node in nodes))
    ray_cluster.disconnect()
    return {"nodes": len(nodes), "gpus": gpus, "free": len(inventory.gpus), "kinds": kinds}


def _size(memory_bytes: int | None) -> str:
    return "memory unknown" if memory_bytes is None else f"{memory_bytes / 1e9:.0f} GB"


if __name__ == "__main__":
    try:
        if len(sys.argv) > 1:
            address, source = sys.argv[1:]
            with given_by(source):
                print(json.dumps(look_at(address)))
        else:
            print(json.dumps(look_at(None)))
    except ValueError as error:
        sys.exit(first_line(error))
