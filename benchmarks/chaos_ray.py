"""Kill workers, nodes and runs under Ray, on tiny real models on this machine, and compare with an undisturbed run.

    python benchmarks/chaos_ray.py [model scale kills poison nodes roles stop] [--short]

Each part prints one line of JSON with its figures and whether it held; the exit code is 1 if one did not. Only
processes that were started here are killed, by their id.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent / "tests"
sys.path.insert(0, str(TESTS))
os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
os.environ |= {
    "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_OFFLINE": "1",
    "RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "20",
    "RAY_health_check_initial_delay_ms": "500", "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
}  # fmt: skip
for name in ("CUDA_VISIBLE_DEVICES", "RAY_ADDRESS"):
    os.environ.pop(name, None)

import ray  # noqa: E402
import tiny  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from ltx_dist.checkpoints.checkpoint import open_checkpoint  # noqa: E402
from ltx_dist.config import OutputConfig  # noqa: E402
from ltx_dist.execution.local_executor import LocalExecutor  # noqa: E402
from ltx_dist.execution.ray_executor import RayExecutor  # noqa: E402
from ltx_dist.execution.renderer import Renderer  # noqa: E402
from ltx_dist.execution.worker import StageWorker, WorkerSpec  # noqa: E402
from ltx_dist.scheduling.inventory import DeviceInfo  # noqa: E402
from ltx_dist.scheduling.placement import Placement, Worker  # noqa: E402
from ltx_dist.scheduling.scheduler import Scheduler  # noqa: E402
from ltx_dist.types import STAGES, Failure, RenderRequest, RenderResult, Stage  # noqa: E402

Hashes = dict[str, tuple[str, str]]


def make_requests(count: int, steps: int) -> list[RenderRequest]:
    return [
        RenderRequest(f"{i}", "a prompt", "", 64, 64, 9, 25.0, steps, 3.0, 0.0, i, 0.05, 0.025, 32)
        for i in range(count)
    ]


def workers_of(hosted: list[tuple[Stage, ...]], num_gpus: float = 1.0) -> Placement:
    """Fake GPUs of Ray's; the computing is done on the CPU."""
    workers = [Worker(f"w{i}", stages, "cpu", threads=1, num_gpus=num_gpus) for i, stages in enumerate(hosted)]
    return Placement("chaos", tuple(workers), {Stage.DENOISE: 4, Stage.DECODE: 4})


class Bench:
    """A tiny checkpoint, and the hashes of clips rendered in peace in this process."""

    def __init__(self, folder: Path) -> None:
        self.path = tiny.save_checkpoint(folder / "checkpoint", "0.9.5")
        self.checkpoint = open_checkpoint(str(self.path))

    def spec(self, worker: Worker) -> WorkerSpec:
        return WorkerSpec(worker, self.checkpoint, {}, "float32", OutputConfig())

    def expected(self, requests: list[RenderRequest]) -> Hashes:
        placement = workers_of([STAGES])
        executor = LocalExecutor([self.spec(worker) for worker in placement.workers])
        try:
            return hashes(list(Renderer(Scheduler(placement), executor).render(requests)))
        finally:
            executor.shutdown()


def hashes(results: list[RenderResult]) -> Hashes:
    return {r.request.request_id: (r.video.frames_sha256, r.video.mp4_sha256) for r in results if r.video}


@contextmanager
def local_cluster(num_gpus: int) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        ray.init(
            address="local", num_cpus=4, num_gpus=num_gpus, include_dashboard=False, log_to_driver=False,
            logging_level="error", object_store_memory=150 << 20, _temp_dir=folder,
        )  # fmt: skip
        try:
            yield
        finally:
            ray.shutdown()


def charged_most(renderer: Renderer) -> int:
    charges = Counter(
        name
        for c in renderer.completions
        for name in c.assignment.request_ids
        if c.failure in (Failure.CRASH, Failure.HANG)
    )
    return max(charges.values(), default=0)


def pids_of(executor: RayExecutor) -> dict[str, int]:
    return {name: home.pid for name, home in executor._workers._homes.items()}


def kills(bench: Bench, short: bool) -> dict[str, Any]:
    """T6: a random worker is killed every 2 s."""
    requests = make_requests(12 if short else 40, steps=40)
    expected = bench.expected(requests)
    placement = workers_of([STAGES, STAGES])
    rng, num_kills, results = random.Random(6), 0, []
    with local_cluster(2):
        executor = RayExecutor([bench.spec(worker) for worker in placement.workers])
        renderer = Renderer(Scheduler(placement), executor)
        next_kill = None
        try:
            renderer.begin(requests)
            while len(results) < len(requests):
                results += renderer.turn()
                pids = list(pids_of(executor).values())
                next_kill = next_kill or (time.monotonic() + 2 if pids else None)
                if next_kill and time.monotonic() >= next_kill:
                    next_kill = time.monotonic() + 2
                    if pids:  # else this one is let go: a kill that waits for a worker would hit each as it comes up
                        os.kill(rng.choice(pids), signal.SIGKILL)
                        num_kills += 1
        finally:
            executor.shutdown()
    done = sum(result.status == "done" for result in results)
    most = charged_most(renderer)
    equal = hashes(results) == {name: expected[name] for name in hashes(results)}
    ok = done == len(requests) and equal and most <= 3
    return {"clips": len(requests), "done": done, "kills": num_kills, "most_charges": most, "equal": equal, "ok": ok}


class Saboteur(StageWorker):
    """Clip 7 kills any worker that denoises it; worker w1, if `is_bad`, dies of any clip."""

    is_bad = False

    def run(self, stage: Stage, requests: Sequence[RenderRequest], *payloads: Any) -> Any:
        is_bad = self.is_bad and self._spec.worker.worker_id == "w1"
        if stage is Stage.DENOISE and (any(request.request_id == "7" for request in requests) or is_bad):
            os._exit(139)
        return super().run(stage, requests, *payloads)


class BadSaboteur(Saboteur):
    is_bad = True


def poison(bench: Bench, short: bool) -> dict[str, Any]:
    """T9, T10: a poison clip; then one beside a bad worker."""
    requests = make_requests(20, steps=4)
    figures: dict[str, Any] = {"ok": True}
    for name, worker_class in {"poison": Saboteur, "poison_and_bad_worker": BadSaboteur}.items():
        placement = workers_of([STAGES] * 3)
        with local_cluster(3):
            executor = RayExecutor([bench.spec(worker) for worker in placement.workers], worker_class)
            renderer = Renderer(Scheduler(placement), executor)
            try:
                results = list(renderer.render(requests))
                left = sorted(executor._workers.actors)
            finally:
                executor.shutdown()
        failed = [result.request.request_id for result in results if result.status == "failed"]
        attempts = sum(c.assignment.clips == "7" and c.failure is Failure.CRASH for c in renderer.completions)
        bad = sum(c.assignment.worker_id == "w1" and c.failure is Failure.CRASH for c in renderer.completions)
        figures[name] = {"done": len(results) - len(failed), "failed": failed, "attempts": attempts, "workers": left}
        figures[name]["crashes_of_w1"] = bad
        # A batch may be over before a bad worker has had the three crashes that it is dropped for.
        is_right = {"w0", "w2"} <= set(left) and (bad < 3 or not worker_class.is_bad or "w1" not in left)
        figures["ok"] &= failed == ["7"] and len(results) == 20 and attempts == 3 and is_right
    return figures


def nodes(bench: Bench, short: bool) -> dict[str, Any]:
    """T7: three raylets, two removed ungracefully while clips are under way, one added, which is used.

    A node and its worker take their time to come, so clips are added to the batch until that one has had some.
    """
    requests = make_requests(2000, steps=20)
    at_least, hired = 12 if short else 40, []

    def hire(gpu: DeviceInfo, num_workers: int) -> WorkerSpec:
        hired.append(f"new{len(hired)}")
        return bench.spec(Worker(hired[-1], STAGES, "cpu", threads=1, num_gpus=1.0, node_id=gpu.node_id))

    def by_the_new_node(renderer: Renderer) -> int:
        return sum(c.assignment.worker_id in hired and c.failure is None for c in renderer.completions)

    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        options: dict[str, Any] = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": 100 << 20}
        cluster = Cluster(
            initialize_head=True, head_node_args=options | {"temp_dir": folder, "include_dashboard": False}
        )
        others = [cluster.add_node(**options) for _ in range(2)]
        ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
        placement = workers_of([STAGES] * 3)
        executor = RayExecutor([bench.spec(worker) for worker in placement.workers], hire=hire)
        renderer = Renderer(Scheduler(placement), executor)
        results: list[RenderResult] = []
        removed, num_begun = False, 0
        try:
            while num_begun < at_least or by_the_new_node(renderer) < 3 or len(results) < num_begun:
                more = 6 - (num_begun - len(results))
                if more > 0 and (num_begun < at_least or by_the_new_node(renderer) < 3):
                    renderer.begin(requests[num_begun : num_begun + more])
                    num_begun += more
                results += renderer.turn()
                if len(results) >= 3 and not removed:
                    removed = True
                    for node in others:
                        cluster.remove_node(node, allow_graceful=False)
                    cluster.add_node(**options)
        finally:
            executor.shutdown()
            ray.shutdown()
            cluster.shutdown()
    lost = Counter(str(c.failure) for c in renderer.completions if c.failure)
    done = sum(result.status == "done" for result in results)
    equal = hashes(results) == bench.expected(requests[:num_begun])
    return {
        "clips": num_begun, "done": done, "lost": lost, "by_the_new_node": by_the_new_node(renderer), "equal": equal,
        "ok": done == num_begun and equal,
    }  # fmt: skip


def roles(bench: Bench, short: bool) -> dict[str, Any]:
    """T8: the worker of each model is killed while it loads and while it works; hashes as in peace."""
    requests = make_requests(6, steps=20)
    expected = bench.expected(requests)
    figures: dict[str, Any] = {"ok": True}
    for index, stage in enumerate(STAGES[1:2] if short else STAGES):
        for when in ("load", "run"):
            placement = workers_of([(each,) for each in STAGES])
            with local_cluster(3):
                executor = RayExecutor([bench.spec(worker) for worker in placement.workers])
                renderer = Renderer(Scheduler(placement), executor)
                try:
                    results = _kill_one(renderer, executor, f"w{index}", stage, when, requests)
                finally:
                    executor.shutdown()
            equal = hashes(results) == expected
            figures[f"{stage} at {when}"] = "equal" if equal else "not equal"
            figures["ok"] &= equal
    return figures


def _kill_one(
    renderer: Renderer, executor: RayExecutor, victim: str, stage: Stage, when: str, requests: list[RenderRequest]
) -> list[RenderResult]:
    results: list[RenderResult] = []
    if when == "load":
        _kill_process_of(executor, victim)
    renderer.begin(requests)
    killed = when == "load"
    while len(results) < len(requests):
        results += renderer.turn()
        works = any(c.assignment.stage is stage for c in renderer.completions)
        if not killed and works:
            killed = True
            os.kill(pids_of(executor)[victim], signal.SIGKILL)
    return results


def _kill_process_of(executor: RayExecutor, victim: str) -> None:
    """While the constructor runs: its process is found among the children of this machine's raylet by its title."""
    actor_ids = {executor._workers.actors[victim]._actor_id.hex()}
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for actor in ray._private.state.actors().values():
            if actor["ActorID"] in actor_ids and actor["Pid"]:
                os.kill(actor["Pid"], signal.SIGKILL)
                return
        time.sleep(0.05)
    raise AssertionError("the worker did not begin to load within 120 s")


def stop(bench: Bench, short: bool) -> dict[str, Any]:
    """T14: SIGTERM at random moments of `ltx-dist render --executor ray`, resumed at last; orphans after 10 s."""
    rng = random.Random(14)
    seconds, orphans, codes = [], 0, Counter[int]()
    with tempfile.TemporaryDirectory(dir="/tmp") as work:
        prompts, out = Path(work) / "prompts.txt", Path(work) / "out"
        prompts.write_text("".join(f"clip number {i}\n" for i in range(20)))
        command = [sys.executable, "-m", "ltx_dist.cli", "render", str(prompts), "-o", str(out), "--executor", "ray"]
        settings = [
            f"model.checkpoint={bench.path}", "defaults.height=64", "defaults.width=64", "defaults.num_frames=9",
            "defaults.num_inference_steps=60", "placement.threads=1", "placement.layout=replicated",
            "placement.devices=2", "placement.device=cpu",
        ]  # fmt: skip
        command += [part for setting in settings for part in ("--set", setting)]
        for _ in range(2 if short else 10):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(rng.uniform(2, 30))
            mine = descendants(process.pid)
            if process.poll() is not None:
                codes[process.returncode] += 1
                continue
            process.send_signal(signal.SIGTERM)
            started = time.monotonic()
            process.wait(timeout=60)
            seconds.append(time.monotonic() - started)
            codes[process.returncode] += 1
            time.sleep(10)
            orphans += sum(is_alive(pid, born) for pid, born in mine.items())
        last = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode
        record = json.loads((out / "run.json").read_text())
    sums = record["done"] + record["failed"] + record["remaining"] == record["submitted"] == record["done"]
    return {
        "stops": len(seconds), "median_seconds": round(statistics.median(seconds or [0]), 2),
        "longest_seconds": round(max(seconds, default=0), 2), "exit_codes": codes, "orphans": orphans,
        "resumed": last, "ok": orphans == 0 and last == 0 and sums and set(codes) <= {75, 0},
    }  # fmt: skip


def descendants(pid: int) -> dict[int, str]:
    """Of a process that we started: pid and time of birth."""
    parents: dict[int, int] = {}
    born: dict[int, str] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(path.parent.name)], born[int(path.parent.name)] = int(fields[1]), fields[19]
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {one: born[one] for one in found if one in born}


def is_alive(pid: int, born: str) -> bool:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[19] == born and fields[0] != "Z"


def model(bench: Bench, short: bool) -> dict[str, Any]:
    """T4: anything at any time, on the scheduler, the policy and the loop."""
    from execution.test_failures import AnythingAtAnyTime
    from hypothesis import settings
    from hypothesis.stateful import run_state_machine_as_test

    examples, steps = (50, 50) if short else (1000, 200)
    started = time.monotonic()
    run_state_machine_as_test(
        AnythingAtAnyTime,
        settings=settings(max_examples=examples, stateful_step_count=steps, deadline=None, database=None),
    )
    return {"examples": examples, "steps": steps, "seconds": round(time.monotonic() - started), "ok": True}


def scale(bench: Bench, short: bool) -> dict[str, Any]:
    """T5: ten thousand clips on 64 workers, 1 % of assignments crash their worker, 0.1 % hang."""
    from execution.test_failures import chaos

    clips = 1000 if short else 10_000
    results, ticks, _ = chaos(clips, 64, traced=False)
    _, _, stayed = chaos(clips, 64)
    p99 = statistics.quantiles(ticks, n=100)[98]
    counts = Counter(result.status for result in results.values())
    return {
        "clips": clips, **counts, "megabytes": round(stayed / 1e6, 1), "p99_ms": round(p99 * 1e3, 2),
        "ok": len(results) == clips and stayed <= 50e6 and p99 <= 0.020,
    }  # fmt: skip


PARTS: dict[str, Callable[[Bench, bool], dict[str, Any]]] = {
    "model": model, "scale": scale, "kills": kills, "poison": poison, "nodes": nodes, "roles": roles, "stop": stop,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=", ".join(PARTS))
    parser.add_argument("--short", action="store_true", help="smaller batches: what the tests run")
    arguments = parser.parse_args()
    all_held = True
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        bench = Bench(Path(folder))
        for part in arguments.parts or PARTS:
            started = time.monotonic()
            figures = PARTS[part](bench, arguments.short)
            all_held &= bool(figures["ok"])
            print(json.dumps({"part": part, "wall_seconds": round(time.monotonic() - started), **figures}), flush=True)
    return 0 if all_held else 1


if __name__ == "__main__":
    sys.exit(main())
