"""Kills workers, nodes and drivers under Ray, with tiny real models, and compares with an undisturbed run.

    python benchmarks/chaos_ray.py [kills poison bad-worker roles node driver hang]

Each part prints what it saw; the first that fails ends the script. All parts share one cluster on this machine (see
`disturbed.py`). Only processes that were started here are killed, by their id.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from disturbed import Bench, Run, bench, charges, is_publishing, kill, record
from forked import ROOT, digests
from processes import ACTOR, survivors, titled
from proofs import run_proofs
from text_to_video import STAGES, D

from ltx_dist.engine.deadlines import LEAST_SECONDS
from ltx_dist.engine.failures import MAX_STREAK
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.worker.stage_worker import StageWorker

REPLICATED = ("placement.layout=replicated", "placement.devices=2")
PINNED = ("placement.layout=pinned", "placement.devices=3")
KILL_EVERY_SECONDS = 2.0
NODE_TRIES = 3
MOMENTS = ("load", "run", "publish")


def kills(bench: Bench, num_clips: int = 40, num_steps: int = 40) -> str:
    """Kill a random worker every 2 s."""
    out, rng, killed = bench.root / "kills", random.Random(6), []

    def saboteur(run: Run) -> None:
        run.until(run.pids)
        while not run.is_over.wait(KILL_EVERY_SECONDS):
            if pids := list(run.pids().values()):  # a kill that waited would hit each worker as soon as it is up
                killed.append(rng.choice(pids))
                kill(killed[-1])

    code, said = bench.render(out, bench.command(out, num_clips, num_steps, *REPLICATED), saboteur)
    assert code == 0, said
    assert digests(out) == bench.expected(num_clips, num_steps) and killed
    most = max(charges(out).values(), default=0)
    assert most <= 3
    done = f"{num_clips} of {num_clips} clips done"
    return f"{len(killed)} workers killed: {done}, hashes equal, at most {most} failures charged to a clip"


def has(requests: Sequence[RenderRequest], name: str) -> bool:
    return any(request.request_id == name for request in requests)


class Saboteur(StageWorker):
    """A worker that dies when it denoises clip 7."""

    def run(self, stage: str, requests: Sequence[RenderRequest], *payloads: Any, keys: Any = ()) -> Any:
        if stage == D and has(requests, "clip-007"):
            os._exit(139)
        return super().run(stage, requests, *payloads, keys=keys)


BAD_WORKER = "cpu:1"


class BadSaboteur(Saboteur):
    """Like `Saboteur`, but the second worker dies on any clip. The others are slow, so that it is restarted often."""

    def run(self, stage: str, requests: Sequence[RenderRequest], *payloads: Any, keys: Any = ()) -> Any:
        if stage == D:
            if self._spec.worker.worker_id == BAD_WORKER:
                os._exit(139)
            time.sleep(4)
        return super().run(stage, requests, *payloads, keys=keys)


def poison(bench: Bench) -> str:
    """Render a batch with a poison clip: the command exits with 3."""
    told, _ = with_poison(bench, "poison", Saboteur, 20, 4)
    return f"19 done, clip-007 failed after 3 attempts, exit 3; crashes by worker {dict(crashes(told))}"


def poison_and_bad_worker(bench: Bench) -> str:
    """Render a batch with a poison clip and a bad worker, which is dropped once three clips in a row have failed on it.

    Clip 7 may be one of these if it came to that worker first; once it has failed elsewhere, it no longer counts.
    """
    told, said = with_poison(bench, "bad", BadSaboteur, 20, 4)
    witnesses = {e["request_id"] for e in told["events"] if e["worker_id"] == BAD_WORKER and "failure" in e}
    is_dropped = f"worker {BAD_WORKER} is no longer used" in said
    assert len(witnesses) >= MAX_STREAK if is_dropped else len(witnesses - {"clip-007"}) < MAX_STREAK, (witnesses, said)
    what = f"{BAD_WORKER} alone dropped" if is_dropped else "the batch was over before a third clip had failed on it"
    return f"19 done, clip-007 alone failed, {what}, exit 3; crashes by worker {dict(crashes(told))}"


def with_poison(
    bench: Bench, name: str, workers: type[Saboteur], num_clips: int, num_steps: int
) -> tuple[dict[str, Any], str]:
    """run.json, and what the command printed. Asserts that all other clips are as in an undisturbed run."""
    out = bench.root / name
    settings = ("placement.layout=replicated", "placement.devices=3")
    code, said = bench.render(out, bench.command(out, num_clips, num_steps, *settings), workers=workers)
    assert code == 3, (code, said)
    told = record(out)
    assert (told["done"], told["failed"], told["exit_code"]) == (num_clips - 1, 1, 3), told
    failed = [path.stem for path in out.glob("clip-*.json") if json.loads(path.read_bytes())["status"] == "failed"]
    assert failed == ["clip-007"] and charges(out)["clip-007"] == 3, (failed, charges(out), crashes(told))
    peace = bench.expected(num_clips, num_steps)
    assert digests(out, failed) == {clip: hashes for clip, hashes in peace.items() if clip not in failed}
    return told, said


def crashes(told: dict[str, Any]) -> Counter[str]:
    return Counter(event["worker_id"] for event in told["events"] if event.get("failure") == "crash")


def roles(bench: Bench, num_clips: int = 8, num_steps: int = 40) -> str:
    """Kill each component's worker while it loads, while it works, and while a clip is published."""
    expected, seen = bench.expected(num_clips, num_steps), []
    for stage in STAGES:
        out, moments = bench.root / f"role-{stage}", []

        def saboteur(run: Run, stage: str = stage, moments: list[str] = moments) -> None:
            victim = run.until(lambda: run.worker_of(stage))
            for moment, pid_then in {
                "load": lambda: run.loading_pid(victim),
                "run": lambda: run.working_pid(victim),
                "publish": lambda: run.is_publishing() and (run.pids().get(victim) or run.loading_pid(victim)),
            }.items():
                kill(run.until(pid_then))
                moments.append(moment)

        code, said = bench.render(out, bench.command(out, num_clips, num_steps, *PINNED), saboteur)
        assert code == 0 and tuple(moments) == MOMENTS, (code, moments, said)
        assert digests(out) == expected, stage
        seen.append(str(stage))
    return f"workers of {', '.join(seen)} killed at {', '.join(MOMENTS)}: hashes equal"


def node(bench: Bench, num_clips: int = 8, num_steps: int = 40) -> str:
    """Kill the workers' raylet at each moment, and rerun the command until it ends with 0."""
    expected, seen = bench.expected(num_clips, num_steps), []
    for moment in MOMENTS:
        out, lost = bench.root / f"node-{moment}", []

        def saboteur(run: Run, moment: str = moment, lost: list[str] = lost) -> None:
            node_id = bench.gpu_node.node_id
            of_moment = {
                "load": lambda: run.loading_on(node_id),
                "run": lambda: run.up_on(node_id),
                "publish": lambda: run.is_publishing() and run.up_on(node_id),
            }
            lost += run.until(of_moment[moment])
            bench.cluster.remove_node(bench.gpu_node, allow_graceful=False)

        command, codes = bench.command(out, num_clips, num_steps, *PINNED), []
        for _ in range(NODE_TRIES):  # Ray may put only one worker on the node, which may finish almost at once
            shutil.rmtree(out, ignore_errors=True)
            codes.append(bench.render(out, command, saboteur)[0])
            if lost:
                break
        assert lost, f"no worker was on the node at {moment}"
        bench.new_gpu_node()
        while codes[-1] == 75:
            codes.append(bench.render(out, command)[0])
        assert codes[-1] == 0 and digests(out) == expected, (moment, codes)
        seen.append(f"at {moment} with {len(lost)} workers, exit {', '.join(map(str, codes))}")
    return f"a raylet killed {'; '.join(seen)}: hashes equal"


def driver(bench: Bench, num_clips: int = 8, num_steps: int = 40) -> str:
    """Kill the command itself at each moment, in consecutive runs on the same folder, and then resume it."""
    out, events = bench.root / "driver", bench.root / "driver.jsonl"
    command = [sys.executable, "-m", "ltx_dist.cli", *bench.command(out, num_clips, num_steps, *PINNED)]
    command += [*bench.ray_options, "--json-events", str(events)]
    reached = {
        "load": lambda told: "batch_started" in told and titled(ACTOR, os.getpid()),
        "run": lambda told: "stage_ended" in told,
        "publish": lambda told: is_publishing(out),
    }
    for moment in MOMENTS:
        begin = events.stat().st_size if events.exists() else 0
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not reached[moment](events.read_text()[begin:] if events.exists() else ""):
            assert process.poll() is None, f"ended before {moment}"
            time.sleep(0.01)
        workers = titled(ACTOR, os.getpid())
        process.kill()
        process.wait()
        assert survivors(workers, 10) == 0, f"workers outlive a driver killed at {moment}"
    last = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stdout + last.stderr
    assert digests(out) == bench.expected(num_clips, num_steps)
    return f"the driver killed at {', '.join(MOMENTS)}: 0 workers left 10 s later, resumed with equal hashes"


class Hanging(StageWorker):
    """A worker whose first denoising of clip 3 never returns from a C call, which holds the interpreter's lock and
    ignores signals."""

    marker = ""

    def run(self, stage: str, requests: Sequence[RenderRequest], *payloads: Any, keys: Any = ()) -> Any:
        if stage == D and has(requests, "clip-003") and not os.path.exists(self.marker):
            Path(self.marker).write_text(f"{os.getpid()} {time.time()}")
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            ctypes.PyDLL(None).pause()
        return super().run(stage, requests, *payloads, keys=keys)


def hang(bench: Bench, num_clips: int = 8, num_steps: int = 40) -> str:
    """Let a stage hang: its process is killed, the clip is charged, and another worker renders it."""
    out = bench.root / "hang"
    Hanging.marker = str(bench.root / "hung")
    ended: list[float] = []

    def saboteur(run: Run) -> None:
        # The file exists a moment before its text does.
        pid, began = run.until(lambda: os.path.exists(Hanging.marker) and Path(Hanging.marker).read_text().split())
        run.until(lambda: not os.path.exists(f"/proc/{pid}"))
        ended.append(time.time() - float(began))

    code, said = bench.render(out, bench.command(out, num_clips, num_steps, *REPLICATED), saboteur, Hanging)
    assert code == 0 and ended, said
    (lost,) = (e for e in record(out)["events"] if e.get("failure"))
    assert (lost["failure"], lost["request_id"]) == ("hang", "clip-003") and charges(out) == {"clip-003": 1}
    by = json.loads((out / "clip-003.json").read_bytes())["stages"]["denoise"]["worker"]
    assert by != lost["worker_id"] and digests(out) == bench.expected(num_clips, num_steps)
    assert ended[0] <= LEAST_SECONDS + 10
    return f"killed {ended[0]:.0f} s after its stage began, charged once, done by {by}, hashes equal"


PARTS = {
    "kills": kills, "poison": poison, "bad-worker": poison_and_bad_worker, "roles": roles, "node": node,
    "driver": driver, "hang": hang,
}  # fmt: skip


if __name__ == "__main__":
    with bench() as shared:
        run_proofs(PARTS, shared)
