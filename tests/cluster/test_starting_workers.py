"""Workers that cannot start: one bad card among eight, and a checkpoint that none of them can load."""

from __future__ import annotations

from typing import Any

import pytest
from builders import STAGES
from ray.exceptions import RayError

from ltx_dist.cluster import ray_workers
from ltx_dist.cluster.ray_workers import RayWorkers
from ltx_dist.engine.executor import Joined, Left, WorkerStartError
from ltx_dist.pipeline.worker import Worker


class FakeRay:
    """Answers of constructors, by name of the worker, once they are given; an error is raised by `get`."""

    def __init__(self) -> None:
        self.answers: dict[str, RayError | None] = {}
        self.killed: list[str] = []

    def wait(self, refs: list[str], num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        ready = [ref for ref in refs if ref in self.answers]
        return ready, [ref for ref in refs if ref not in ready]

    def get(self, ref: str) -> str:
        if (error := self.answers[ref]) is not None:
            raise error
        return "home"

    def kill(self, actor: str) -> None:
        self.killed.append(actor)


class Spec:
    def __init__(self, number: int) -> None:
        self.worker = Worker(f"cuda:{number}", STAGES, "cuda", num_gpus=1.0)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setattr(ray_workers, "ray", fake)
    monkeypatch.setattr(ray_workers, "reserve", lambda specs: {})
    monkeypatch.setattr(ray_workers, "Nodes", lambda known: None)

    def start(self: Any, worker_id: str) -> None:
        self.actors[worker_id] = worker_id
        self._starting[worker_id] = worker_id, ray_workers.time.monotonic()

    monkeypatch.setattr(RayWorkers, "start", start)
    return fake


def eight() -> RayWorkers:
    specs: Any = [Spec(number) for number in range(8)]
    return RayWorkers(specs)


def refusal(name: str) -> RayError:
    return RayError(
        f"The actor died\nltx_dist.engine.executor.WorkerStartError: worker {name}: torch finds no GPU here"
    )


def test_one_bad_card_leaves_the_other_seven_rendering(ray: FakeRay) -> None:
    workers = eight()
    ray.answers["cuda:3"] = refusal("cuda:3")
    (left,) = workers.poll()
    assert isinstance(left, Left) and left.worker_id == "cuda:3" and not left.can_return
    assert left.reason == "worker cuda:3: torch finds no GPU here" and ray.killed == ["cuda:3"]
    ray.answers |= {f"cuda:{number}": None for number in range(8) if number != 3}
    assert [change.worker.worker_id for change in workers.poll() if isinstance(change, Joined)] == [
        f"cuda:{number}" for number in range(8) if number != 3
    ]


def test_when_none_can_start_the_last_ends_the_run_with_its_reason(ray: FakeRay) -> None:
    workers = eight()
    for number in range(7):
        ray.answers[f"cuda:{number}"] = refusal(f"cuda:{number}")
        assert len(workers.poll()) == 1
    ray.answers["cuda:7"] = refusal("cuda:7")
    with pytest.raises(WorkerStartError, match="^worker cuda:7: torch finds no GPU here$"):
        workers.poll()


def test_a_process_that_died_while_it_started_may_try_again(ray: FakeRay) -> None:
    workers = eight()
    ray.answers["cuda:0"] = RayError("The actor is dead because its worker process has died")
    (left,) = workers.poll()
    assert isinstance(left, Left) and left.can_return
