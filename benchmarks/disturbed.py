"""Runs `ltx-dist render --executor ray` in this process, on a cluster on this machine, and disturbs it on purpose.

The command runs in the main thread and does all that it does for a user: output folder, spool, page, exit code. A
second thread watches the command's executor. It kills the processes that a proof chooses, by their id, at the moment
that the proof chooses.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from forked import ROOT, digests, render_command, save_checkpoint, write_prompts

TESTS = ROOT / "tests"
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(TESTS), os.environ.get("PYTHONPATH", "")])
os.environ |= {
    "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "20",
    "RAY_health_check_initial_delay_ms": "500", "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
}  # fmt: skip
os.environ.pop("CUDA_VISIBLE_DEVICES", None)

from ray._private import state  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from ltx_dist.cluster import ray_executor  # noqa: E402
from ltx_dist.worker.spec import WorkerSpec  # noqa: E402
from ltx_dist.worker.stage_worker import StageWorker  # noqa: E402

Digests = dict[str, tuple[str, str]]
Saboteur = Callable[["Run"], None]

POLL_SECONDS = 0.002
PATIENCE_SECONDS = 180.0
"""Maximum seconds to wait for something that must happen, such as a worker that loads, or a first clip."""


class FollowedExecutor(ray_executor.RayExecutor):
    """The executor that the command makes. `now` is the executor of the running command."""

    now: ClassVar[FollowedExecutor | None] = None
    worker_class: ClassVar[type[StageWorker]] = StageWorker

    def __init__(self, specs: Sequence[WorkerSpec], **options: Any) -> None:
        super().__init__(specs, self.worker_class, **options)
        FollowedExecutor.now = self

    def shutdown(self) -> None:
        FollowedExecutor.now = None
        super().shutdown()


class Run:
    """A running command, as a saboteur sees it."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.is_over = threading.Event()

    @property
    def executor(self) -> FollowedExecutor:
        executor = FollowedExecutor.now
        if executor is None:
            raise Over
        return executor

    def until(self, is_so: Callable[[], Any]) -> Any:
        """Wait until `is_so` returns something true, and return that. Raises Over if the command ends first."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if self.is_over.is_set():
                raise Over
            with contextlib.suppress(Over):
                if found := is_so():
                    return found
            time.sleep(POLL_SECONDS)
        raise AssertionError(f"the moment did not come within {PATIENCE_SECONDS:.0f} s")

    def worker_of(self, stage: str) -> str:
        """The first worker that hosts a stage."""
        specs = self.executor._workers._specs
        return next(name for name, spec in specs.items() if stage in spec.worker.stages)

    def pids(self) -> dict[str, int]:
        """Process ids of the workers that are up."""
        return {name: home.pid for name, home in list(self.executor._workers._homes.items())}

    def loading_pid(self, worker_id: str) -> int | None:
        """The process id of a worker while its constructor runs."""
        return self._loading(worker_id).get("Pid") or None

    def loading_on(self, node_id: str) -> list[str]:
        """Workers whose constructors run on a node."""
        names = list(self.executor._workers.actors)
        return [name for name in names if self._loading(name).get("Address", {}).get("NodeID") == node_id]

    def working_pid(self, worker_id: str) -> int | None:
        """The process id of a worker while it has an assignment."""
        return self.pids().get(worker_id) if worker_id in self._working() else None

    def up_on(self, node_id: str) -> list[str]:
        """The workers that are up on a node, if any of them has an assignment; otherwise none."""
        homes = list(self.executor._workers._homes.items())
        names = [name for name, home in homes if home.node_id == node_id]
        return names if self._working().intersection(names) else []

    def is_publishing(self) -> bool:
        return is_publishing(self.out)

    def _working(self) -> set[str]:
        return {call.assignment.worker_id for call in list(self.executor._calls.values())}

    def _loading(self, worker_id: str) -> dict[str, Any]:
        """Ray's record of an actor while its constructor runs; otherwise empty."""
        workers = self.executor._workers
        actor = workers.actors.get(worker_id)
        if actor is None or worker_id in workers._homes:
            return {}
        return state.actors(actor._actor_id.hex())


class Over(Exception):
    """The command ended before the awaited moment."""


def is_publishing(out: Path) -> bool:
    """Whether the first mp4 is being written, or already there."""
    return any(out.glob("*.mp4")) or any(".mp4" in path.name for path in (out / ".ltx-dist" / "tmp").glob("*"))


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # an earlier kill has ended it
        os.kill(pid, signal.SIGKILL)


class Bench:
    """A tiny checkpoint, and a cluster whose head has no GPU and whose one other node has three fake ones."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.checkpoint = save_checkpoint(root / "checkpoint")
        options = {"num_cpus": 4, "object_store_memory": 100 << 20}
        self._node_options: dict[str, Any] = options | {"num_gpus": 3}
        self.cluster = Cluster(
            initialize_head=True,
            head_node_args=options | {"num_gpus": 0, "temp_dir": str(root / "ray"), "include_dashboard": False},
        )
        self.gpu_node = self.cluster.add_node(**self._node_options)

    def close(self) -> None:
        self.cluster.shutdown()

    def new_gpu_node(self) -> None:
        self.gpu_node = self.cluster.add_node(**self._node_options)

    def prompts(self, num_clips: int) -> Path:
        return write_prompts(self.root / f"{num_clips}.jsonl", num_clips)

    def command(self, out: Path, num_clips: int, num_steps: int, *settings: str) -> list[str]:
        """The arguments of `render`, without the cache of embeddings, which would spare later runs the text encoder."""
        all_of_them = [f"defaults.num_inference_steps={num_steps}", "cache.embeddings=null", *settings]
        more = [word for setting in all_of_them for word in ("--set", setting)]
        return render_command(self.prompts(num_clips), out, self.checkpoint, *more)

    @property
    def ray_options(self) -> list[str]:
        return ["--executor", "ray", "--address", str(self.cluster.address)]

    def expected(self, num_clips: int, num_steps: int) -> Digests:
        """Digests of an undisturbed run in this process."""
        out = self.root / f"expected-{num_clips}-{num_steps}"
        if not out.exists():
            code, said = run_command([*self.command(out, num_clips, num_steps), "--executor", "local"])
            assert code == 0, said
        return digests(out)

    def render(
        self, out: Path, command: list[str], saboteur: Saboteur | None = None, workers: type[StageWorker] = StageWorker
    ) -> tuple[int, str]:
        """The command's exit code, and what it printed."""
        run, trouble = Run(out), []

        def sabotage() -> None:
            try:
                if saboteur:
                    saboteur(run)
            except Over:
                pass
            except BaseException as error:
                trouble.append(error)

        thread = threading.Thread(target=sabotage, name="saboteur")
        thread.start()
        FollowedExecutor.worker_class = workers
        original, ray_executor.RayExecutor = ray_executor.RayExecutor, FollowedExecutor
        try:
            return run_command([*command, *self.ray_options])
        finally:
            ray_executor.RayExecutor = original
            run.is_over.set()
            thread.join()
            if trouble:
                raise trouble[0]


def run_command(arguments: list[str]) -> tuple[int, str]:
    from ltx_dist.cli import app

    with tempfile.TemporaryFile("w+") as said:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                app(arguments)
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
        said.seek(0)
        return code, said.read()


@contextlib.contextmanager
def bench() -> Iterator[Bench]:
    # The paths of Ray's sockets must be short.
    with tempfile.TemporaryDirectory(prefix="chaos-", dir="/tmp") as folder:
        os.environ["LTX_DIST_CACHE"] = f"{folder}/cache"
        one = Bench(Path(folder))
        try:
            yield one
        finally:
            one.close()


def record(out: Path) -> dict[str, Any]:
    return json.loads((out / "run.json").read_bytes())


def charges(out: Path) -> Counter[str]:
    """How many failures were charged to each clip in the last run."""
    return Counter(e["request_id"] for e in record(out)["events"] if e.get("failure") in ("crash", "hang"))
