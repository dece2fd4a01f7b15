"""`ltx-dist submit` where the cluster ends with the job, or is lost: no traceback, and the job's own exit code."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest
from typer.testing import CliRunner, Result

from ltx_dist.cli import app
from ltx_dist.cluster import ray_jobs
from ltx_dist.commands import jobs


class GoneClient:
    """A client whose cluster does not answer any more."""

    def get_job_info(self, submission_id: str) -> NoReturn:
        raise ConnectionError("Connection refused")


def submit(monkeypatch: pytest.MonkeyPatch, *options: str) -> Result:
    monkeypatch.setattr(jobs, "_connect", lambda address, insecure: GoneClient())
    monkeypatch.setattr(jobs, "_submit", lambda client, submission: "ltx-0a-1")
    command = ["submit", "--prompt", "a red circle", "-o", "/out", "--address", "http://localhost:8265", *options]
    return CliRunner().invoke(app, command)


def test_a_cluster_that_ends_with_its_job_leaves_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_jobs, "follow", lambda client, submission_id, write: 3)
    result = submit(monkeypatch)
    assert result.exit_code == 3, result.output
    assert "the job ended; no answer from the cluster: Connection refused" in result.stderr


def test_a_stop_that_reaches_no_cluster_says_how_to_follow_the_job_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(ray_jobs, "follow", interrupted)
    result = submit(monkeypatch, "--stop-on-interrupt")
    assert result.exit_code == 75, result.output
    assert "no answer from the cluster: Connection refused; rerun the same command to follow" in result.stderr
