"""Kills parts of the Ray cluster during a run, or stops its driver: the run exits with 75 and a hint, or continues.

    python benchmarks/chaos_cluster.py [own-head own-node head node other-node stopped]

In `own-*` and `stopped`, the command starts Ray itself; otherwise it joins a cluster of three nodes on this machine. A
run that exited is resumed. In the end, the clips equal those of an undisturbed run. Only processes that were started
here are killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from disturbed import is_publishing, record
from forked import ROOT, digests, render_command, save_checkpoint, write_prompts
from processes import ACTOR, titled
from proofs import run_proofs
from raylets import raylets

from ltx_dist.engine.deadlines import LEAST_SECONDS
from ltx_dist.run.stop import EXIT_STOPPED

NUM_CLIPS = 10
SETTINGS = ("defaults.num_inference_steps=40", "placement.layout=replicated", "placement.devices=2")
PATIENCE_SECONDS = 900.0
RAYS_OWN_SECONDS = 60.0
"""Seconds after which Ray's C++ code ends a driver whose head does not answer, with exit code 1."""

MOMENTS: dict[str, Callable[[Path], bool]] = {
    "loading": lambda out: (out / "run.json").exists(),
    "rendering": is_publishing,
}


class Bench:
    def __init__(self, root: Path) -> None:
        self.root, self.checkpoint = root, save_checkpoint(root / "checkpoint")
        self.prompts = write_prompts(root / "prompts.jsonl", NUM_CLIPS)
        assert self.start(root / "expected", "--executor", "local").wait(PATIENCE_SECONDS) == 0
        self.expected = digests(root / "expected")

    def start(self, out: Path, *more: str) -> subprocess.Popen[str]:
        settings = (word for setting in SETTINGS for word in ("--set", setting))
        command = render_command(self.prompts, out, self.checkpoint, *settings, *more)
        return subprocess.Popen(
            [sys.executable, "-m", "ltx_dist.cli", *command], cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def disturb(self, name: str, more: list[str], moment: str, act: Callable[[int], None]) -> tuple[int, float, str]:
        """The exit code, the seconds from `act` to the end, and what was printed. `act` gets the driver's pid."""
        out = self.root / name
        process = self.start(out, *more)
        try:
            until(lambda: process.poll() is not None or MOMENTS[moment](out))
            assert process.poll() is None, f"ended before {moment}: {process.communicate()[0]}"
            act(process.pid)
            acted = time.monotonic()
            said, _ = process.communicate(timeout=PATIENCE_SECONDS)
        finally:
            process.kill()
        assert "Traceback" not in said, said
        return process.returncode, time.monotonic() - acted, said

    def is_stopped(self, name: str, ended: tuple[int, float, str], reason: str) -> str:
        """Assert that a run ended with 75, a hint and a record, before Ray ended it, and that it resumes. Returns a
        summary."""
        code, seconds, said = ended
        last = said.splitlines()[-1]
        assert code == EXIT_STOPPED and reason in last and "rerun the same command to resume" in last, (
            code,
            seconds,
            said[-3000:],
        )
        assert seconds < RAYS_OWN_SECONDS, seconds
        told = record(self.root / name)
        assert told["exit_code"] == EXIT_STOPPED and told["done"] + told["remaining"] == NUM_CLIPS, told
        self.resume(name)
        return f"exit 75 after {seconds:.0f} s with {told['done']} of {NUM_CLIPS} clips done, resumed with equal hashes"

    def resume(self, name: str) -> None:
        process = self.start(self.root / name, "--executor", "local")
        said, _ = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 0 and digests(self.root / name) == self.expected, said


def own(bench: Bench, part: str, reason: str) -> str:
    """Kill a part of the Ray that the command started: once while workers load, and once while clips are rendered."""
    seen: list[str] = []
    for moment in MOMENTS:

        def act(driver: int) -> None:
            victims = [one for one in psutil.Process(driver).children(recursive=True) if one.name() == part]
            assert len(victims) == 1, victims
            victims[0].kill()

        name = f"own-{part}-{moment}"
        ended = bench.disturb(name, ["--executor", "ray"], moment, act)
        seen.append(f"{moment}: {bench.is_stopped(name, ended, reason)}")
    return "; ".join(seen)


def joined(bench: Bench, name: str, is_victim: Callable[[psutil.Process], bool]) -> tuple[int, float, str]:
    """How a run on a cluster of three nodes ends if some of the nodes' processes are killed while it renders."""
    with raylets(num_nodes=3) as cluster:

        def act(driver: int) -> None:
            below = psutil.Process().children(recursive=True)
            victims = [one for one in below if one.name() in ("gcs_server", "raylet") and is_victim(one)]
            assert victims, below
            for victim in victims:
                victim.kill()

        return bench.disturb(name, ["--executor", "ray", "--address", cluster.head], "rendering", act)


def is_of_the_driver(raylet: psutil.Process) -> bool:
    """Whether the raylet is the head's. If several nodes are on one machine, a driver joins the head's."""
    return raylet.name() == "raylet" and "--head" in raylet.cmdline()


def head(bench: Bench) -> str:
    """Kill the head of a cluster that the run joined. `ray start --block` then ends the head's node, too."""
    ended = joined(bench, "head", lambda one: one.name() == "gcs_server")
    return bench.is_stopped("head", ended, "Ray's node on this machine has ended")


def node(bench: Bench) -> str:
    """Kill the driver's own node of a cluster that the run joined."""
    ended = joined(bench, "node", is_of_the_driver)
    return bench.is_stopped("node", ended, "Ray's node on this machine has ended")


def other_nodes(bench: Bench) -> str:
    """Kill the other nodes: the run continues on the driver's node, or stops if that has no worker."""
    code, seconds, said = joined(bench, "other", lambda one: one.name() == "raylet" and not is_of_the_driver(one))
    assert code in (0, EXIT_STOPPED), (code, said)
    if code == EXIT_STOPPED:
        assert "rerun the same command to resume" in said, said
        bench.resume("other")
    assert digests(bench.root / "other") == bench.expected
    return f"both other nodes killed: exit {code} after {seconds:.0f} s, equal hashes"


def stopped_driver(bench: Bench) -> str:
    """Stop the driver (SIGSTOP) for 100 s while a step takes 7 s: when it continues, no worker counts as hung."""
    still, step = LEAST_SECONDS + 40, 7.0

    def act(driver: int) -> None:
        is_over = threading.Event()
        slow = threading.Thread(target=slow_down, args=(list(titled(ACTOR, driver)), step, is_over))
        slow.start()
        os.kill(driver, signal.SIGSTOP)
        time.sleep(still)
        os.kill(driver, signal.SIGCONT)
        time.sleep(LEAST_SECONDS / 2)
        is_over.set()
        slow.join()

    code, _, said = bench.disturb("stopped", ["--executor", "ray"], "rendering", act)
    assert code == 0 and digests(bench.root / "stopped") == bench.expected, said
    failures = [event for event in record(bench.root / "stopped")["events"] if event.get("failure")]
    assert not failures, failures
    return f"stopped for {still:.0f} s with steps of {step:.0f} s: no worker ended, no clip charged, equal hashes"


def slow_down(workers: Sequence[int], step: float, is_over: threading.Event) -> None:
    """Let workers compute only for moments, so that a step of this small model takes `step` seconds."""
    while not is_over.is_set():
        send(workers, signal.SIGCONT)
        time.sleep(0.02)
        send(workers, signal.SIGSTOP)
        is_over.wait(step)
    send(workers, signal.SIGCONT)


def send(workers: Sequence[int], what: signal.Signals) -> None:
    for pid in workers:
        with suppress(ProcessLookupError):
            os.kill(pid, what)


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, f"the moment did not come within {PATIENCE_SECONDS:.0f} s"
        time.sleep(0.02)


PARTS: dict[str, Callable[[Bench], str]] = {
    "own-head": lambda bench: own(bench, "gcs_server", "the cluster"),
    "own-node": lambda bench: own(bench, "raylet", "Ray's node on this machine has ended"),
    "head": head,
    "node": node,
    "other-node": other_nodes,
    "stopped": stopped_driver,
}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="chaos-", dir="/tmp") as folder:
        os.environ["LTX_DIST_CACHE"] = f"{folder}/cache"
        run_proofs(PARTS, Bench(Path(folder)))
