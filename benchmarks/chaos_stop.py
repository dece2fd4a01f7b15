"""Stops runs and jobs from outside: they end within the grace, leave nothing behind, and resume with equal hashes.

    python benchmarks/chaos_stop.py [sigterm job]

`sigterm` stops `ltx-dist render --executor ray`, which starts its own Ray, at random moments. `job` uses `ray job stop`
with a grace of 3 s, Ray's default, and of 60 s.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from disturbed import is_publishing, record, run_command
from forked import ROOT, digests, render_command, save_checkpoint, write_prompts
from processes import ACTOR, descendants, survivors, titled
from proofs import run_proofs
from ray.job_submission import JobSubmissionClient
from raylets import BIN, raylets

from ltx_dist.run.stop import EXIT_STOPPED

NUM_CLIPS = 12
SETTINGS = ("defaults.num_inference_steps=100", "placement.layout=replicated", "placement.devices=2")
GRACE_SECONDS = 3.0
"""The default of `recovery.grace_seconds`."""

LEFT_SECONDS = 10.0

CALL_SECONDS = 2.0
"""Seconds until Ray's job server has passed on the signal, and has seen that the process is gone."""


class Bench:
    def __init__(self, root: Path) -> None:
        self.root, self.checkpoint = root, save_checkpoint(root / "checkpoint")
        self.prompts = write_prompts(root / "prompts.jsonl", NUM_CLIPS)
        code, said = run_command(self.command(root / "expected", "--executor", "local"))
        assert code == 0, said
        self.expected = digests(root / "expected")

    def command(self, out: Path, *more: str) -> list[str]:
        return render_command(self.prompts, out, self.checkpoint, *(w for s in SETTINGS for w in ("--set", s)), *more)


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ltx_dist.cli", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def sigterm(bench: Bench, num_stops: int = 10) -> str:
    """Send SIGTERM at moments spread over the duration of a run. A finished batch is checked and started again."""
    out, rng = bench.root / "sigterm", random.Random(14)
    command = bench.command(out, "--executor", "ray")
    began = time.monotonic()
    assert start(command).wait() == 0
    whole, seconds, left, batches = time.monotonic() - began, [], 0, 0

    def check() -> None:
        assert digests(out) == bench.expected
        shutil.rmtree(out)

    check()
    while len(seconds) < num_stops:
        process, moment = start(command), rng.uniform(1, whole)
        try:
            code = process.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            mine = descendants(process.pid)
            process.send_signal(signal.SIGTERM)
            asked = time.monotonic()
            code = process.wait(timeout=60)
            seconds.append(time.monotonic() - asked)
            left += survivors(mine, LEFT_SECONDS)
        # -SIGTERM: the signal came before there was anything to stop.
        assert code in (0, EXIT_STOPPED, -signal.SIGTERM), f"exit {code} of stop {len(seconds)}, {moment:.1f} s in"
        if (out / "run.json").exists():
            told = record(out)
            assert told["done"] + told["failed"] + told["remaining"] == told["submitted"] == NUM_CLIPS
        if code == 0:
            check()
            batches += 1
    code, said = run_command(command)
    assert left == 0 and code == 0, (left, code, said)
    check()
    assert max(seconds) <= GRACE_SECONDS, seconds
    return (
        f"{len(seconds)} SIGTERMs over {batches + 1} batches (a run takes {whole:.0f} s): ended after "
        f"{statistics.median(seconds):.1f} s (longest {max(seconds):.1f} s, grace {GRACE_SECONDS:g} s), "
        "0 processes left, resumed with equal hashes"
    )


def job(bench: Bench) -> str:
    """Stop a job with `ray job stop`. The command's `recovery.grace_seconds` is set to the grace of the job."""
    seen = []
    with raylets() as addresses:
        jobs = JobSubmissionClient(addresses.jobs)
        for grace in (3, 60):
            out, name = bench.root / f"job-{grace}", f"stop-{grace}"
            command = ["ltx-dist", *bench.command(out, "--set", f"recovery.grace_seconds={grace}")]
            environment = json.dumps({"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(grace)}})
            submit = [BIN / "ray", "job", "submit", "--address", addresses.jobs, "--no-wait", "--submission-id", name]
            subprocess.run(
                [*submit, "--runtime-env-json", environment, "--", *command], check=True, capture_output=True
            )
            until(lambda out=out, name=name: is_publishing(out) or jobs.get_job_status(name).is_terminal())
            assert is_publishing(out), jobs.get_job_logs(name)
            workers, driver = titled(ACTOR, os.getpid()), titled("ltx-dist render", os.getpid())
            began = time.monotonic()
            jobs.stop_job(name)  # all that `ray job stop` does, without its seconds of imports
            assert driver and survivors(driver, grace + 5) == 0
            seconds = time.monotonic() - began
            assert workers and survivors(workers, LEFT_SECONDS) == 0
            told = record(out)
            # run.json has the exit code only if the command ended by itself, before Ray's SIGKILL.
            assert seconds <= grace + CALL_SECONDS and told["exit_code"] == EXIT_STOPPED, (seconds, told)
            code, said = run_command(bench.command(out, "--executor", "local"))
            assert code == 0 and digests(out) == bench.expected, said
            seen.append(f"with {grace} s: ended after {seconds:.1f} s with {told['done']} of {NUM_CLIPS} clips done")
    return f"`ray job stop` {'; '.join(seen)}; exit 75, 0 workers left, resumed with equal hashes"


def until(is_so: Callable[[], Any], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "the moment did not come"
        time.sleep(0.02)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="chaos-", dir="/tmp") as folder:
        os.environ["LTX_DIST_CACHE"] = f"{folder}/cache"
        run_proofs({"sigterm": sigterm, "job": job}, Bench(Path(folder)))
