"""Renders one clip of each flow in this process, and again on actors of a cluster, with one actor per node.

    python nodes_ltx2.py CHECKPOINT PICTURE HEAD

Every node has one GPU, which Ray counts but nothing uses, and every actor asks for one, so no two share a node. Prints
the number of clips and of nodes; fails if a digest of frames or sound differs.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import ray
import test_ltx2_layouts as layouts
import torch

from ltx_dist.checkpoints.checkpoint import open_checkpoint
from ltx_dist.cluster.ray_executor import RayExecutor
from ltx_dist.pipeline.conditions import Condition


def main(checkpoint: str, picture: str, head: str) -> None:
    torch.set_num_threads(1)
    image = Condition(picture, hashlib.sha256(Path(picture).read_bytes()).hexdigest(), fit="stretch", crf=33)
    case = layouts.Case(open_checkpoint(checkpoint), "bfloat16", layouts.requests_of(image), {})
    placement = layouts.placed(case.checkpoint, "pinned")
    local = layouts.render(case, placement)
    ray.init(address=head, log_to_driver=False)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    assert all(node["Resources"]["GPU"] == 1 for node in nodes) and len(nodes) == len(placement.workers), nodes
    apart = replace(placement, workers=tuple(replace(worker, num_gpus=1.0) for worker in placement.workers))
    assert layouts.render(case, apart, RayExecutor) == local
    print(f"{len(local)} clips, {len(nodes)} nodes")


if __name__ == "__main__":
    main(*sys.argv[1:])
