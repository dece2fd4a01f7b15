"""`submit`, `status` and `stop`: batches as jobs on a Ray cluster."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ltx_dist.commands.prompt_options import (
    Column,
    Expand,
    Images,
    KeepColumns,
    Text,
    Vary,
    given_prompts,
    with_prompt_options,
)
from ltx_dist.commands.shared import Config, Model, Profile, Prompts, Set, bad_input, load
from ltx_dist.messages import clean, clean_lines, tell
from ltx_dist.run.stop import EXIT_INTERNAL, EXIT_STOPPED

if TYPE_CHECKING:
    from ltx_dist.cluster.ray_jobs import JobDetails, JobSubmissionClient
    from ltx_dist.cluster.submission import Submission

SERVER_VARIABLE = "RAY_API_SERVER_ADDRESS"

JobServerAddress = Annotated[
    str,
    typer.Option(
        "--address",
        envvar=SERVER_VARIABLE,
        help="The cluster's job server (its dashboard), such as http://localhost:8265 through an ssh tunnel.",
    ),
]
Insecure = Annotated[bool, typer.Option(help="Send the token over plain http to another machine.")]
Pip = Annotated[
    list[str] | None,
    typer.Option(
        "--pip",
        metavar="REQUIREMENT|FILE",
        help="Have Ray install a package for the job on every node: a requirement such as s3fs>=2025.3, the lines of a "
        "requirements .txt file, or a .whl file, which is sent if its path is relative. Repeatable.",
    ),
]
JobId = Annotated[str, typer.Argument(help="The job's id, as printed by `submit` or `status`.")]


def submit(
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            help="Where to write the clips: an absolute path on the cluster's head, or a URL (s3://, gs://...).",
        ),
    ],
    address: JobServerAddress,
    prompts: Prompts = None,
    model: Model = None,
    profile: Profile = None,
    config: Config = None,
    set_: Set = None,
    images: Images = None,
    pip: Pip = None,
    wait: Annotated[
        bool, typer.Option(help="Follow the job and exit with its exit code, or return once it is submitted.")
    ] = True,
    stop_on_interrupt: Annotated[
        bool, typer.Option(help="Ctrl-C stops the job. Otherwise Ctrl-C detaches and the job keeps running.")
    ] = False,
    insecure: Insecure = False,
    prompt: Text = None,
    vary: Vary = None,
    expand: Expand = None,
    column: Column = None,
    keep_columns: KeepColumns = None,
) -> None:
    """Render a batch as a job on a Ray cluster. Rerun the same command to follow the job or to resume the batch.

    Prompts and settings are checked before anything is sent. Exit codes are those of `render`, and 75 after Ctrl-C.
    """
    with bad_input():
        from ltx_dist.cluster.submission import prepare

        settings = load(config, set_, profile, model)
        settings = with_prompt_options(settings, vary, expand, column, keep_columns)
        submission = prepare(given_prompts(prompts, prompt), settings, output, images, pip or ())
        client = _connect(address, insecure)
        submission_id = _submit(client, submission)
    if wait:
        sys.exit(_follow(client, submission_id, address, stop_on_interrupt))
    tell(_how_to_go_on(submission_id, address))


def status(
    address: JobServerAddress,
    job: Annotated[str | None, typer.Argument(help="A job's id; lists all jobs if not given.")] = None,
    insecure: Insecure = False,
) -> None:
    """List jobs and their status, or show one."""
    with bad_input():
        client = _connect(address, insecure)
        from ltx_dist.cluster.ray_jobs import find_job, list_jobs

        jobs = [find_job(client, job)] if job else list_jobs(client)
    for one in jobs:
        tell(_line(one))
    if not jobs:
        tell("no ltx-dist jobs on this cluster")
    if job and jobs[0].message:
        tell(jobs[0].message.strip())


def stop(job: JobId, address: JobServerAddress, insecure: Insecure = False) -> None:
    """Stop a job. Finished clips are kept, and the same `submit` command resumes with the others."""
    with bad_input():
        client = _connect(address, insecure)
        from ltx_dist.cluster.ray_jobs import LostContactError
        from ltx_dist.cluster.ray_jobs import stop as stop_job

        try:
            tell(_line(stop_job(client, job)))
        except LostContactError as error:
            tell(f"ltx-dist: {error}", sys.stderr)
            sys.exit(EXIT_INTERNAL)


def _connect(address: str, insecure: bool) -> JobSubmissionClient:
    from ltx_dist.cluster.given_address import OPTION, given_by
    from ltx_dist.cluster.job_server import check_job_server

    # Ray reads its token settings when it is first imported, so nothing may import it before this line.
    was_typed = any(word in (address, f"{OPTION}={address}") for word in sys.argv)
    with given_by(OPTION if was_typed else SERVER_VARIABLE):
        server = check_job_server(address, insecure)
        from ltx_dist.cluster.ray_jobs import connect

        return connect(server)


def _submit(client: JobSubmissionClient, submission: Submission) -> str:
    from ltx_dist.cluster.ray_jobs import submit as submit_job
    from ltx_dist.messages import count

    submission_id, is_new = submit_job(client, submission)
    if is_new:
        tell(f"{submission_id}: {count(submission.num_clips, 'clip')} submitted")
    else:
        tell(f"{submission_id}: this batch is already running; following it")
    if not submission.checkpoint_is_here:
        tell("the checkpoint is not on this machine; settings that depend on it are checked when the job starts")
    return submission_id


def _follow(client: JobSubmissionClient, submission_id: str, address: str, stop_on_interrupt: bool) -> int:
    from ltx_dist.cluster import ray_jobs

    try:
        try:
            code = ray_jobs.follow(client, submission_id, _write)
        except KeyboardInterrupt:
            if not stop_on_interrupt:
                tell(f"\ndetached; the job keeps running\n{_how_to_go_on(submission_id, address)}")
                return EXIT_STOPPED
            tell("\nstopping the job; Ctrl-C again detaches")
            try:
                code = ray_jobs.exit_code(ray_jobs.stop(client, submission_id))
            except ValueError as error:
                tell(f"ltx-dist: {error}; rerun the same command to follow the job again", sys.stderr)
                return EXIT_STOPPED
    except ray_jobs.LostContactError as error:
        tell(
            f"ltx-dist: no answer from the cluster: {error}; rerun the same command to follow the job again", sys.stderr
        )
        return EXIT_STOPPED
    except KeyboardInterrupt:
        return EXIT_STOPPED
    _tell_end(client, submission_id)
    return code


def _tell_end(client: JobSubmissionClient, submission_id: str) -> None:
    """Print how the job ended. Its cluster may have ended with it, and then gives no details."""
    from ltx_dist.cluster import ray_jobs

    try:
        job = ray_jobs.find_job(client, submission_id)
    except ValueError as error:
        tell(f"ltx-dist: the job ended; {error}", sys.stderr)
        return
    tell(_line(job))
    if reason := ray_jobs.why_no_exit_code(job):
        tell(f"ltx-dist: the job {reason}; `ltx-dist status {submission_id}` says more", sys.stderr)


def _write(text: str) -> None:
    sys.stdout.write(clean_lines(text))
    sys.stdout.flush()


def _how_to_go_on(submission_id: str, address: str) -> str:
    return "\n".join(f"  ltx-dist {command} {submission_id} --address {address}" for command in ("status", "stop"))


def _line(job: JobDetails) -> str:
    """`ltx-3f0a-1  FAILED  exit code 3  2026-11-24 10:00:00, 62 s  ltx-dist render ...`"""
    from ltx_dist.cluster.ray_jobs import exit_code

    began = datetime.fromtimestamp(job.start_time / 1000) if job.start_time else None
    when = f"{began:%Y-%m-%d %H:%M:%S}" if began else "not started"
    if job.start_time and job.end_time:
        when += f", {(job.end_time - job.start_time) / 1000:.0f} s"
    outcome = f"exit code {exit_code(job)}" if job.status.is_terminal() else ""
    return clean("  ".join(filter(None, [str(job.submission_id), job.status.value, outcome, when, job.entrypoint])))
