"""A Ray cluster of `ray start` processes on this machine, with a job server on loopback, for tests that need one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

BIN = Path(sys.executable).parent
ATTEMPTS = 3


class Addresses(NamedTuple):
    """Addresses of a cluster's job server and of its head."""

    jobs: str
    head: str


@contextmanager
def raylets(
    num_nodes: int = 1, gpus_each: int = 0, environment: Mapping[str, str] | None = None, programs: Path = BIN
) -> Iterator[Addresses]:
    """Start a head and further nodes. Yields the addresses, and ends the processes that were started.

    The GPUs are fake ones, which Ray only counts. `environment` is added to the nodes' own. programs: the folder with
    the nodes' `ray` and `python`.
    """
    port, dashboard, client = free_ports(3)
    with ExitStack() as started:
        # The paths of Ray's sockets must be short, so pytest's long temporary folders will not do.
        folder = started.enter_context(tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp"))
        head = ["--head", "--port", str(port), "--temp-dir", folder, "--dashboard-host", "127.0.0.1"]
        head += ["--dashboard-port", str(dashboard), "--ray-client-server-port", str(client)]
        # Started one after another: together, they can take longer than the 30 s that Ray allows a node.
        for arguments in [head, *[["--address", f"127.0.0.1:{port}"]] * (num_nodes - 1)]:
            started.enter_context(_node(programs, arguments, gpus_each, environment or {}))
        _wait_for(f"http://127.0.0.1:{dashboard}/api/gcs_healthz")
        yield Addresses(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{port}")


@contextmanager
def _node(programs: Path, arguments: list[str], num_gpus: int, environment: Mapping[str, str]) -> Iterator[None]:
    """A node that has joined. On a busy machine, it may take more than Ray's 30 s; then another one is started."""
    command = [
        str(programs / "ray"), "start", "--block", "--node-ip-address", "127.0.0.1", "--num-cpus", "2",
        "--num-gpus", str(num_gpus), "--object-store-memory", str(150 << 20),
        "--dashboard-agent-listen-port", "0", "--min-worker-port", "0", "--max-worker-port", "0", *arguments,
    ]  # fmt: skip
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"} | dict(environment)
    for attempt in range(1, ATTEMPTS + 1):
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        said = _said_until(process, "Ray runtime started")
        if process.poll() is None:
            break
        assert attempt < ATTEMPTS, f"the node did not start:\n{said}"
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def _said_until(process: subprocess.Popen[str], words: str) -> str:
    """What the process prints, up to the line with these words, or everything if it ends without them."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            return said
    process.wait()
    return said


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _wait_for(url: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=5).read()
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise AssertionError(f"{url} did not answer within {seconds:.0f} s")
