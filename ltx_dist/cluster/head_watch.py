"""Ends a run in time when its cluster is lost, before Ray ends the process.

A driver that loses its head (GCS) or its machine's raylet is ended by Ray's C++, after 60 s or some 15 s, with exit
code 1 and no word of how to resume. A thread that checks whether both still accept connections acts before that.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

from ray._private import worker as ray_worker
from ray.exceptions import RayError

LOOK_SECONDS = 0.25

ANSWER_SECONDS = 0.2
"""Seconds for the kernel to accept a connection, whatever the process behind it is doing."""

GONE_LOOKS = 2
"""Failed checks in a row that mean a loss: neither a raylet nor the head of our own cluster comes back, and Ray's C++
may end the process within seconds."""

HEAD_LOOKS = 100
"""The same for the head of a cluster that was joined: it may be restarted, and Ray waits 60 s for that. These take 25
to 45 s."""


class HeadWatch:
    """Watches the cluster inside its block. If the cluster is lost, calls `leave` with a line; that does not return.

    is_ours: this run started the cluster, so nobody will start its head again.
    """

    def __init__(self, leave: Callable[[str], None], is_ours: bool) -> None:
        node: Any = ray_worker.global_worker.node
        host, _, port = node.gcs_address.rpartition(":")
        self._head = host.strip("[]"), int(port)
        self._raylet = str(node.raylet_socket_name)
        self._leave = leave
        self._head_looks = GONE_LOOKS if is_ours else HEAD_LOOKS
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="head-watch", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Leave if this error of Ray is the loss of the cluster, which the thread may not have confirmed yet."""
        self._over.set()
        self._thread.join()
        if isinstance(error, RayError) and not (self._head_answers() and self._raylet_answers()):
            self._leave("the cluster is gone")

    def _watch(self) -> None:
        """Count checks rather than seconds: a driver that was stopped for a minute has checked once."""
        head = raylet = 0
        while not self._over.wait(LOOK_SECONDS):
            head = 0 if self._head_answers() else head + 1
            raylet = 0 if self._raylet_answers() else raylet + 1
            if raylet >= GONE_LOOKS:
                self._leave("Ray's node on this machine has ended")
            elif head >= self._head_looks:
                self._leave(f"the cluster's head at {self._head[0]}:{self._head[1]} is gone")

    def _head_answers(self) -> bool:
        try:
            socket.create_connection(self._head, timeout=ANSWER_SECONDS).close()
        except OSError:
            return False
        return True

    def _raylet_answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as one:
            one.settimeout(ANSWER_SECONDS)
            try:
                one.connect(self._raylet)
            except BlockingIOError:
                return True  # its queue of connections is full, so it is there
            except OSError:
                return False
        return True
