"""One run of a batch, from requests to published clips and `run.json`. All commands use it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from rich.console import Console

from ltx_dist.cluster.cluster_head import check_head
from ltx_dist.cluster.given_address import GivenAddress, given_by, is_joined
from ltx_dist.engine.workers import WorkersLostError
from ltx_dist.environment import CUDA_VISIBLE_DEVICES, OURS, changed
from ltx_dist.media.file_formats import ALSO
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.placement.inventory import Inventory
from ltx_dist.placement.local_devices import check_order, local_inventory, visible_devices
from ltx_dist.report.live_page import write_clips, write_run
from ltx_dist.report.observers import Follower
from ltx_dist.report.run_record import RunProgress, records_work
from ltx_dist.run.batch import Batch
from ltx_dist.run.live import render_requests
from ltx_dist.run.placed_batch import PlacedBatch, place_batch
from ltx_dist.run.precision import one_device, usable
from ltx_dist.run.session import Session
from ltx_dist.run.stop import EXIT_DONE, EXIT_INTERNAL, EXIT_OUTPUT, EXIT_SOME_FAILED, EXIT_STOPPED, Stop
from ltx_dist.store.artifact_folder import drop_artifacts, spool_folder
from ltx_dist.store.files import INTERNAL, write_atomically
from ltx_dist.store.kept_config import write_settings
from ltx_dist.store.lock import check_platform, folder_lock
from ltx_dist.store.output import Output
from ltx_dist.store.output_errors import OutputError, output_errors
from ltx_dist.store.publisher import Publisher
from ltx_dist.store.sidecar import has_other_pixels

if TYPE_CHECKING:
    from ltx_dist.run.resumption import Resumption

ExecutorKind = Literal["auto", "local", "ray"]

KEEPS_LATENTS = "keeps-latents"
"""Marks that a run kept the latents of finished clips: a later run without `keep_latents` does not remove them."""


def render_batch(
    batch: Batch,
    out: Output,
    kind: ExecutorKind,
    given: GivenAddress,
    stop: Stop,
    console: Console,
    followers: Sequence[Follower] = (),
    uses_session: bool = False,
) -> RunProgress:
    """Render the clips that the output does not have yet. Returns the record of the run, which `run.json` holds if
    there was something to render.

    console: a quiet one to print nothing. uses_session: whether to use a Ray session that this process has joined, and
    leave it open. Raises ValueError for errors in the input that only show now: an address, a device, a layout, or a
    folder that another run is writing to; OutputError if the output cannot be written; WorkerStartError and
    SystemicError if no clip can be rendered with this setup; WorkersLostError if no worker is left, and
    KeyboardInterrupt if the run was stopped: after these two, the same call resumes.
    """
    check_platform()
    with ExitStack() as held:
        wishes, environment = batch.config.placement, None
        inventory = found = local_inventory(wishes.device)
        if kind == "local":
            if inventory.gpus and wishes.device != "cpu" and (wishes.devices or 1) > 1:
                raise ValueError(
                    f"placement.devices: executor local uses one GPU, not {wishes.devices}; leave either out"
                )
            inventory = one_device(batch.config, inventory)
        in_session = uses_session and is_joined()
        uses_ray = _uses_ray(batch, kind, given.address is not None or in_session, inventory)
        with output_errors():
            out = out.locked(held.enter_context(folder_lock(out.folder)))
        if uses_ray:
            stop.interrupts = False
            environment, visible = OURS if given.address is not None or in_session else None, None
            if environment is None and (used := usable(batch.config, found).gpus) != found.gpus:
                # Ray chooses among the GPUs that it sees, so that each would count as the oldest of them.
                batch, visible = batch.warned_of(found), visible_devices(used)
            inventory = held.enter_context(_cluster(given, stop, in_session, visible))
        elif wishes.device != "cpu":
            check_order(found)
        return _run(Session(place_batch(batch, inventory), out, uses_ray, console, stop, followers, environment))


def _uses_ray(batch: Batch, kind: ExecutorKind, has_cluster: bool, inventory: Inventory) -> bool:
    """Whether to use Ray: `auto` does for a cluster to join, one joined already, or several workers."""
    if kind != "auto":
        return kind == "ray"
    return has_cluster or len(batch.placement(inventory).workers) > 1


def _run(session: Session) -> RunProgress:
    """Find the remaining clips, and render them."""
    placed, out = session.placed, session.out
    with output_errors():
        posters = placed.batch.config.output.poster
        publisher = Publisher(out.folder, placed.checkpoint_record(), out.held, placed.sidecar_notes(), posters)
        if out.mirror:
            out.mirror.pull()
        publisher.check_names(placed.batch.requests, [ALSO[name].ending for name in placed.batch.config.output.also])
        remaining = _unpublished(placed, publisher, out)
        resumption = _open_resumption(session, remaining)
    if resumption is not None:
        session = replace(session, placed=placed.hosting(resumption.todo(remaining)))
    run = _progress(session.placed, remaining)
    session.announce(remaining)
    with ExitStack() as followed:
        for follower in session.followers:
            followed.enter_context(follower.batch(run, session.note))
        with closing(out.mirror) if out.mirror else nullcontext():
            if remaining or not records_work(out.folder):
                _finish(session, remaining, publisher, resumption, run)
            else:
                _keep_record(session, publisher, run)
    return run


def _keep_record(session: Session, publisher: Publisher, run: RunProgress) -> None:
    """End a run that renders nothing. `run.json`, and with it the page's timeline, stay those of the run before."""
    out = session.out
    if out.mirror:
        out.mirror.finish()
    if publisher.has_written:
        with output_errors():
            problem = write_clips(out)
        if problem is not None:
            session.note(f"warning: {problem}")
    run.exit_code = _exit_code(session, run)


def _finish(
    session: Session,
    remaining: list[RenderRequest],
    publisher: Publisher,
    resumption: Resumption | None,
    run: RunProgress,
) -> None:
    """Render the remaining requests. However this ends, `run` and `run.json` record it with its exit code."""
    session.stop.last_words = partial(_tell_stopped, run, session.out)
    try:
        with output_errors():
            session.warn_of_shortage(remaining)
            num_told = len(run.warnings)
            write_run(run, session.out)
            for line in run.warnings[num_told:]:
                session.note(f"warning: {line}")
            if not session.placed.batch.decoded_again:  # otherwise keep those that the latents were made with
                placed, out = session.placed, session.out
                write_settings(out.folder, out.held, placed.batch.config, **placed.resolved_model())
        if resumption is not None:
            render_requests(session, remaining, publisher, resumption, run)
        if session.out.mirror:
            session.out.mirror.finish()
        run.exit_code = _exit_code(session, run)
    except (KeyboardInterrupt, WorkersLostError):
        session.stop.end()
        run.exit_code = EXIT_STOPPED
        raise
    except OutputError:
        run.exit_code = EXIT_OUTPUT
        raise
    except BaseException as error:
        run.exit_code = EXIT_INTERNAL
        if isinstance(error, ValueError):  # the input was valid when the run began, so this is a bug
            raise RuntimeError(f"internal error: {error}") from error
        raise
    finally:
        with suppress(OSError, OutputError):  # an output that cannot be written was reported already
            write_run(run, session.out)


def _exit_code(session: Session, run: RunProgress) -> int:
    return EXIT_SOME_FAILED if run.failed or session.placed.batch.left_out else EXIT_DONE


def _tell_stopped(run: RunProgress, out: Output) -> None:
    run.exit_code = EXIT_STOPPED
    write_run(run, out)


def _progress(placed: PlacedBatch, remaining: list[RenderRequest]) -> RunProgress:
    skipped = len(placed.batch.requests) - len(remaining)
    run = RunProgress(placed.placement, placed.batch.names, placed.checkpoint_record(), skipped=skipped)
    run.unfinished = {request.request_id for request in remaining}
    run.warnings += placed.batch.warnings
    return run


def _unpublished(placed: PlacedBatch, publisher: Publisher, out: Output) -> list[RenderRequest]:
    return [request for request in placed.batch.requests if not _is_there(request, placed, publisher, out)]


def _is_there(request: RenderRequest, placed: PlacedBatch, publisher: Publisher, out: Output) -> bool:
    recorded = publisher.recorded(request)
    if placed.batch.config.recovery.exact and has_other_pixels(recorded):
        publisher.make_again(request)
        return False
    planned = placed.keys.render_key(request)
    key = placed.key_to_keep(request, publisher.key_of(request, planned, recorded))
    if out.mirror is None:
        return publisher.is_published(request, key, recorded)
    if out.mirror.holds(request.request_id, key, recorded):
        if publisher.update_notes(request, recorded):
            out.mirror.upload(request.request_id)
        return True
    if staged := publisher.is_published(request, key, recorded):  # left by a run that ended before uploading it
        out.mirror.upload(request.request_id)
    return staged


def _open_resumption(session: Session, remaining: list[RenderRequest]) -> Resumption | None:
    """Saved stage outputs from which clips resume; None if no clip is left."""
    placed, out = session.placed, session.out
    kept = out.folder / INTERNAL / KEEPS_LATENTS
    if placed.batch.config.recovery.keep_latents:
        write_atomically(kept, b"", held=out.held)
    elif not kept.exists():
        # Remove latents left by a run that was killed between publishing a clip and removing its latents.
        published = {request.request_id for request in placed.batch.requests} - {r.request_id for r in remaining}
        drop_artifacts(spool_folder(out.folder), published, out.held)
    if not remaining:
        return None
    from ltx_dist.run.resumption import open_resumption

    return open_resumption(placed, out, remaining)


@contextmanager
def _cluster(given: GivenAddress, stop: Stop, was_joined: bool, visible: str | None) -> Iterator[Inventory]:
    """The cluster's inventory. A cluster that this process has joined before is left as it is.

    visible: CUDA_VISIBLE_DEVICES for a cluster that is started here, if it is to differ from this process's.
    """
    with given_by(given.source) if given.address is not None else nullcontext():
        if not was_joined and given.address is not None and given.address != "auto":
            check_head(given.address)  # before Ray is imported: it may have to use a token
        # These imports take seconds. They come before joining, because after it Ray may replace a job's working
        # directory, which torch asks for when it is imported.
        from ltx_dist.cluster import ray_cluster, ray_executor  # noqa: F401

        with changed({} if visible is None else {CUDA_VISIBLE_DEVICES: visible}):
            inventory = ray_cluster.joined(given.address) if was_joined else ray_cluster.connect(given.address)
    if was_joined:
        yield inventory
        return
    from ltx_dist.cluster.head_watch import HeadWatch

    try:
        with HeadWatch(stop.leave, is_ours=given.address is None):
            yield inventory
    finally:
        ray_cluster.disconnect()
