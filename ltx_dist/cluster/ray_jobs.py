"""Jobs on a Ray cluster, through Ray's own client: submit, follow to the true end, stop, list."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from aiohttp import ClientError
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient, JobType
from requests import RequestException

from ltx_dist.cluster.job_server import JobServer
from ltx_dist.cluster.submission import STOP_WAIT_SECONDS, Submission
from ltx_dist.cluster.token import refused
from ltx_dist.messages import first_line

EXIT_INTERNAL = 1
EXIT_STOPPED = 75

POLL_SECONDS = 1.0

SILENCE_SECONDS = 300.0
"""Seconds without an answer after which we stop following; the job itself continues."""

LOST = (RequestException, ClientError, ConnectionError, RuntimeError)
"""What Ray's client raises for a broken connection or a server error."""


class LostContactError(Exception):
    """The job server did not answer for SILENCE_SECONDS. The job may still be running."""


def connect(server: JobServer) -> JobSubmissionClient:
    """A client of the job server. Raises ValueError, in one line, if it rejects the token or does not answer."""
    # Ray's client prefers the cluster of these variables to the address that it is given.
    os.environ["RAY_API_SERVER_ADDRESS"] = server.address
    os.environ.pop("RAY_ADDRESS", None)
    try:
        return JobSubmissionClient(server.address)
    except AuthenticationError:
        raise refused(server.address) from None
    except LOST as error:
        raise ValueError(f"{server.address}: {first_line(error)}") from None


def submit(client: JobSubmissionClient, submission: Submission) -> tuple[str, bool]:
    """The id of the batch's job, and whether it is new: a job that still runs for the same batch is used.

    Raises ValueError when the server refuses it.
    """
    try:
        attempts = [job for job in list_jobs(client) if str(job.submission_id).startswith(submission.id_prefix)]
        running = [str(job.submission_id) for job in attempts if not job.status.is_terminal()]
        if running:
            return running[0], False
        submission_id = submission.next_id(str(job.submission_id) for job in attempts)
        with tempfile.TemporaryDirectory(prefix="ltx-dist-") as folder:
            for name, content in submission.files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            client.submit_job(
                entrypoint=submission.entrypoint,
                submission_id=submission_id,
                runtime_env=submission.runtime_env(folder),
            )
    except LOST as error:
        raise ValueError(f"the cluster rejected the job: {first_line(error)}{_remedy(error)}") from None
    return submission_id, True


def _remedy(error: BaseException) -> str:
    """The head's agent takes a while to come up, and never does where another Ray of the machine holds its port."""
    if "No available agent" not in str(error):
        return ""
    return (
        "; its job agent is not up: wait a minute, or where two Rays share a machine start one with "
        "`ray start --dashboard-agent-listen-port` and a free port"
    )


def list_jobs(client: JobSubmissionClient) -> list[JobDetails]:
    """The jobs that `submit` made on this cluster, the oldest first. Raises ValueError when the server fails."""
    try:
        jobs = client.list_jobs()
    except LOST as error:
        raise ValueError(f"the cluster does not list its jobs: {first_line(error)}") from None
    ours = [job for job in jobs if str(job.submission_id).startswith("ltx-")]
    return sorted((job for job in ours if job.type is JobType.SUBMISSION), key=lambda job: job.start_time or 0)


def find_job(client: JobSubmissionClient, submission_id: str) -> JobDetails:
    """The job. Raises ValueError if none has this id, or if the server does not answer."""
    try:
        return client.get_job_info(submission_id)
    except (RequestException, ConnectionError) as error:
        raise ValueError(f"no answer from the cluster: {first_line(error)}") from None
    except RuntimeError:
        raise ValueError(f"no job {submission_id} on this cluster; `ltx-dist status` lists them") from None


def follow(client: JobSubmissionClient, submission_id: str, write: Callable[[str], None]) -> int:
    """Pass on the job's log from its beginning, as it grows, until the job ends. Returns the job's own exit code.

    Raises LostContactError. A broken connection is opened again, and nothing is written twice.
    """
    written = 0
    heard = time.monotonic()

    async def tail() -> None:
        nonlocal written, heard
        seen = 0
        async for text in client.tail_job_logs(submission_id):
            new = text[max(0, written - seen) :]
            seen += len(text)
            written += len(new)
            heard = time.monotonic()
            write(new)

    while True:
        try:
            asyncio.run(tail())
            job = client.get_job_info(submission_id)
        except BrokenPipeError:
            raise  # our own pipe: nobody reads our output
        except LOST as error:
            if time.monotonic() - heard > SILENCE_SECONDS:
                raise LostContactError(first_line(error)) from None
        else:
            heard = time.monotonic()
            if job.status.is_terminal():
                return exit_code(job)
        time.sleep(POLL_SECONDS)


def stop(client: JobSubmissionClient, submission_id: str) -> JobDetails:
    """Ask the job to stop, and wait until it has. Finished clips are kept.

    Raises ValueError when there is no such job, LostContactError when it does not end.
    """
    find_job(client, submission_id)
    deadline = time.monotonic() + STOP_WAIT_SECONDS + 30
    try:
        client.stop_job(submission_id)
        while not (job := client.get_job_info(submission_id)).status.is_terminal():
            if time.monotonic() > deadline:
                raise LostContactError(f"{submission_id} is still {job.status.value}")
            time.sleep(POLL_SECONDS)
    except LOST as error:
        raise LostContactError(first_line(error)) from None
    return job


def exit_code(job: JobDetails) -> int:
    """The exit code of the job's command, as in a shell; for a stopped job, that of a stopped batch."""
    assert job.status.is_terminal(), job.status
    if job.status == JobStatus.SUCCEEDED:
        return 0
    if job.status == JobStatus.STOPPED:
        return EXIT_STOPPED
    code = job.driver_exit_code  # None if it never began: its environment could not be made, or its node was lost
    if code is None:
        return EXIT_INTERNAL
    return code if code >= 0 else 128 - code


def why_no_exit_code(job: JobDetails) -> str | None:
    """Why the job failed without an exit code, in a line; None if it has one. Ray's message quotes all that pip
    printed."""
    if job.status != JobStatus.FAILED or job.driver_exit_code is not None:
        return None
    message = (job.message or "").strip()
    errors = [line.strip() for line in message.splitlines() if line.strip().startswith("ERROR: ")]
    reason = errors[0].removeprefix("ERROR: ") if errors else first_line(message)
    # Ray names the driver's node just before it starts the command there.
    how = "did not begin" if job.driver_node_id is None else "ended without an exit code"
    return f"{how}: {reason}"
