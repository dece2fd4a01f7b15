"""The watch over a cluster, on plain sockets: it ends the run once nothing accepts connections any more, not before."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.exceptions import RayError

from ltx_dist.cluster import head_watch
from ltx_dist.cluster.head_watch import HeadWatch

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
"""The thread ends as the process would."""

PATIENCE_SECONDS = 30.0


class Cluster:
    """A head and a raylet as far as the watch sees them: two sockets that listen."""

    def __init__(self, folder: Path) -> None:
        self.head = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.raylet = socket.socket(socket.AF_UNIX)
        self.raylet.bind(str(folder / "raylet"))
        self.raylet.listen(100)
        port = self.head.getsockname()[1]
        self.node = SimpleNamespace(gcs_address=f"127.0.0.1:{port}", raylet_socket_name=str(folder / "raylet"))

    def close(self) -> None:
        self.head.close()
        self.raylet.close()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    one = Cluster(tmp_path)
    monkeypatch.setattr(head_watch.ray_worker, "global_worker", SimpleNamespace(node=one.node))
    monkeypatch.setattr(head_watch, "LOOK_SECONDS", 0.01)
    yield one
    one.close()


class Left:
    """Takes the line that the process would end with, and ends the thread."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.is_called = threading.Event()

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        self.is_called.set()
        if threading.current_thread() is not threading.main_thread():
            raise SystemExit


def test_a_cluster_that_is_there_is_left_alone(cluster: Cluster) -> None:
    left = Left()
    with HeadWatch(left, is_ours=True):
        time.sleep(0.5)
    assert left.lines == []


@pytest.mark.fault(20)
@pytest.mark.parametrize("is_ours", [True, False])
def test_a_raylet_that_has_ended_is_noticed(cluster: Cluster, is_ours: bool) -> None:
    left = Left()
    with HeadWatch(left, is_ours):
        cluster.raylet.close()
        assert left.is_called.wait(PATIENCE_SECONDS)
    assert left.lines == ["Ray's node on this machine has ended"]


def test_the_head_of_a_cluster_of_ones_own_is_gone_at_once_and_a_joined_one_has_time_to_come_back(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_watch, "HEAD_LOOKS", 10**9)
    port = cluster.head.getsockname()[1]
    cluster.head.close()
    joined, own = Left(), Left()
    with HeadWatch(joined, is_ours=False), HeadWatch(own, is_ours=True):
        assert own.is_called.wait(PATIENCE_SECONDS)
    assert own.lines == [f"the cluster's head at 127.0.0.1:{port} is gone"] and joined.lines == []


def test_a_head_that_comes_back_is_forgiven(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [False] * 3 + [True]
    looks: list[bool] = []

    def look(self: HeadWatch) -> bool:
        looks.append(answers[len(looks) % len(answers)])
        return looks[-1]

    monkeypatch.setattr(HeadWatch, "_head_answers", look)
    monkeypatch.setattr(head_watch, "HEAD_LOOKS", 4)
    left = Left()
    with HeadWatch(left, is_ours=False):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(looks) < 20 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert len(looks) >= 20 and left.lines == []


def test_an_error_of_rays_is_the_loss_itself_where_nothing_answers(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_watch, "LOOK_SECONDS", 1000.0)
    left = Left()
    with pytest.raises(RayError), HeadWatch(left, is_ours=True):
        raise RayError("of something else")
    assert left.lines == []
    with pytest.raises(RayError), HeadWatch(left, is_ours=True):
        cluster.close()
        raise RayError("of the loss")
    assert left.lines == ["the cluster is gone"]
