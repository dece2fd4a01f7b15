"""Checks whether a cluster answers and accepts us, and what it has."""

from __future__ import annotations

from collections.abc import Iterator

from ltx_dist.doctor.finding import Finding, failure, ok, warning
from ltx_dist.doctor.packages import REINSTALL
from ltx_dist.doctor.probe import ProbeError, probe


def check_cluster(address: str, source: str) -> Iterator[Finding]:
    """Yield what a cluster has. address: its head (HOST:PORT), as for `render`, or its job server (a URL)."""
    try:
        found = probe("ltx_dist.cluster.ray_probe", address, source)
    except ProbeError as error:
        what, _, remedy = str(error).partition("; ")
        missing = REINSTALL if what.startswith("ModuleNotFoundError") else ""
        yield failure("cluster", what, remedy or missing or "is it up, and is its token in ~/.ray/auth_token?")
        return
    if "jobs" in found:
        yield ok("cluster", f"the job server at {address} grants access: {found['jobs']} jobs of ltx-dist")
        return
    text = f"{address}: {found['nodes']} nodes, {found['free']} of {found['gpus']} GPUs free"
    if found["free"]:
        yield ok("cluster", f"{text}: " + "; ".join(f"{count} x {kind}" for kind, count in found["kinds"].items()))
    elif found["gpus"]:
        yield warning("cluster", text, "wait for other work to end; `ray status` shows it")
    else:
        yield warning("cluster", text, "enough for the demo, with placement.device=cpu")
