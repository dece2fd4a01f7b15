"""One run of a batch: from requests to published clips and `run.json`. The path that every command takes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.text import Text

from ltx_dist.batch import Batch, PlacedBatch, place_batch
from ltx_dist.devices import local_inventory
from ltx_dist.execution.cluster_head import check_head
from ltx_dist.execution.executor import Executor, WorkerStartError
from ltx_dist.execution.failures import SystemicError
from ltx_dist.execution.renderer import Renderer, WorkersLostError
from ltx_dist.execution.stopping import EXIT_STOPPED, Stop, stop_on_signals
from ltx_dist.output.files import INTERNAL, OutputError, output_errors
from ltx_dist.output.live_page import LivePage, write_run
from ltx_dist.output.lock import folder_lock
from ltx_dist.output.place import Output
from ltx_dist.output.progress import progress_of
from ltx_dist.output.publisher import Publisher
from ltx_dist.output.publishing import PublishingThread
from ltx_dist.output.run_record import RunProgress
from ltx_dist.output.settings import write_settings
from ltx_dist.output.watching import Warnings, Watcher, Watchers
from ltx_dist.predictions import keep_corrections
from ltx_dist.scheduling.cliff import CliffGuard
from ltx_dist.scheduling.inventory import Inventory
from ltx_dist.scheduling.ordering import best_order
from ltx_dist.scheduling.pace import planned_ends
from ltx_dist.scheduling.scheduler import Scheduler
from ltx_dist.types import RenderRequest, RenderResult
from ltx_dist.wording import count

if TYPE_CHECKING:
    from ltx_dist.execution.crew import Crew
    from ltx_dist.execution.resumption import Resumption

ExecutorKind = Literal["auto", "local", "ray"]

MAX_NAMED = 20

EXIT_DONE = 0
EXIT_INTERNAL = 1
EXIT_SOME_FAILED = 3
EXIT_OUTPUT = 74


def render_batch(batch: Batch, out: Output, kind: ExecutorKind, address: str | None, console: Console) -> int:
    """Render what the output does not hold yet; returns the exit code, which `run.json` holds too.

    Raises ValueError for what can still be wrong with the input now: an address, a device, a layout, or a folder
    that another run is writing to.
    """
    inventory = local_inventory()
    if kind == "local":
        inventory = replace(inventory, gpus=inventory.gpus[:1])  # one process keeps one device busy
    address = address or os.environ.get("RAY_ADDRESS")
    try:
        with ExitStack() as held:
            stop = held.enter_context(stop_on_signals(batch.config.recovery.grace_seconds))
            uses_ray = _uses_ray(batch, kind, address, inventory)
            with output_errors():
                held.enter_context(folder_lock(out.folder))
            if uses_ray:
                inventory = held.enter_context(_cluster(address))
            return _run(place_batch(batch, inventory), out, uses_ray, console, stop)
    except OutputError as error:
        _say(console, f"the output could not be written: {error}", "red")
        return EXIT_OUTPUT
    except (WorkerStartError, SystemicError) as error:
        _say(console, f"stopped, nothing can be rendered with this: {error}", "red")
        return EXIT_INTERNAL
    except WorkersLostError as error:
        _say(console, f"stopped: {error}; run the same command again to go on", "red")
        return EXIT_STOPPED
    except KeyboardInterrupt:
        _say(console, "stopped; run the same command again to go on")
        return EXIT_STOPPED


def _uses_ray(batch: Batch, kind: ExecutorKind, address: str | None, inventory: Inventory) -> bool:
    """`auto` is Ray where there is a cluster to join or more than one worker to keep busy."""
    if kind != "auto":
        return kind == "ray"
    return bool(address) or len(batch.placement(inventory).workers) > 1


def _run(placed: PlacedBatch, out: Output, uses_ray: bool, console: Console, stop: Stop) -> int:
    folder, batch = out.folder, placed.batch
    with output_errors():
        publisher = Publisher(folder, placed.checkpoint_record())
        if not batch.decoded_again:  # else those that the latents were made with stay known
            write_settings(folder, batch.config, **placed.resolved_model())
        if out.mirror:
            out.mirror.pull()
        remaining = _unpublished(placed, publisher, out)
        if not placed.batch.config.recovery.keep_latents:
            _drop_latents_of_published(placed, folder, remaining)
        resumption = _open_resumption(placed, folder, remaining) if remaining else None
        if resumption is not None:
            placed = placed.hosting(resumption.needed_stages(remaining))
        skipped = len(batch.requests) - len(remaining)
        run = RunProgress(placed.placement, batch.names, placed.checkpoint_record(), skipped=skipped)
        run.unfinished = {request.request_id for request in remaining}
        _announce(placed, folder, remaining, uses_ray, console)
    with out.events.batch(run) if out.events else nullcontext(), closing(out.mirror) if out.mirror else nullcontext():
        if not remaining and run.is_recorded(folder):
            if out.mirror:
                out.mirror.finish()
            run.exit_code = EXIT_DONE
            return EXIT_DONE  # and the record of the run that made these clips stays
        with output_errors():
            write_run(run, out)
        return _finish(placed, out, remaining, publisher, resumption, run, uses_ray, console, stop)


def _finish(
    placed: PlacedBatch,
    out: Output,
    remaining: list[RenderRequest],
    publisher: Publisher,
    resumption: Resumption | None,
    run: RunProgress,
    uses_ray: bool,
    console: Console,
    stop: Stop,
) -> int:
    """Render what remains; whatever happens, `run` and `run.json` tell how it ended."""
    run.exit_code = EXIT_INTERNAL
    try:
        if resumption is not None:
            _render(placed, out, remaining, publisher, resumption, run, uses_ray, console, stop)
        if out.mirror:
            out.mirror.finish()
        run.exit_code = EXIT_SOME_FAILED if run.failed or placed.batch.left_out else EXIT_DONE
    except (KeyboardInterrupt, WorkersLostError):
        stop.end()
        run.exit_code = EXIT_STOPPED
        raise
    except ValueError as error:  # the input was right when the run began: this is ours
        raise RuntimeError(f"internal error: {error}") from error
    except OutputError:
        run.exit_code = EXIT_OUTPUT
        raise
    finally:
        with suppress(OSError, OutputError):  # an output that cannot be written was reported already
            write_run(run, out)
    return run.exit_code


def _render(
    placed: PlacedBatch,
    out: Output,
    requests: list[RenderRequest],
    publisher: Publisher,
    resumption: Resumption,
    run: RunProgress,
    uses_ray: bool,
    console: Console,
    stop: Stop,
) -> None:
    from ltx_dist.execution.crew import Crew

    crew = Crew(placed)
    with _closing(resumption, console), _executor(crew, uses_ray) as executor:
        watchers = Watchers()
        costs = placed.batch.costs(placed.precision)
        guard = CliffGuard.of(costs, lambda: crew.placement.workers)
        renderer = Renderer(
            Scheduler(placed.placement, costs),
            executor,
            resumption,
            on_completion=watchers.stage_ended,
            on_notice=lambda line: _say(console, line, "yellow"),
            is_stopped=lambda: stop.is_asked,
            bounds=lambda: crew.placement.max_queued,
        )
        run.completions, run.costs = renderer.completions, costs
        ordered = best_order(placed.placement, [request.request_id for request in requests], costs)
        by_id = {request.request_id: request for request in requests}
        requests = [by_id[name] for name in ordered.request_ids]
        ends = planned_ends(ordered.completions, ordered.scale)
        page = LivePage()
        with progress_of(
            run.submitted, run.skipped, console, executor.worker_states, renderer.queue_lengths, ends
        ) as progress:
            watchers.add(progress)
            watchers.add(Warnings(guard, run, lambda line: _say(console, f"warning: {line}", "yellow")))
            for watcher in (out.mirror, out.events, _metrics(renderer) if uses_ray else None):
                if watcher:
                    watchers.add(watcher)

            def publish(result: RenderResult) -> None:
                published = _publish(publisher, result, placed.render_key(result.request))
                run.count(published)
                run.placement = crew.placement
                if published.status == "done":
                    resumption.forget(published.request)
                watchers.clip_ended(published)
                page.refresh(run, out)

            with PublishingThread(publish) as publishing:
                for result in renderer.render(requests):
                    publishing.put(result)
    keep_corrections(costs, placed.batch.checkpoint, placed.precision)


def _unpublished(placed: PlacedBatch, publisher: Publisher, out: Output) -> list[RenderRequest]:
    return [
        request
        for request in placed.batch.requests
        if not _is_there(request, placed.render_key(request), publisher, out)
    ]


def _drop_latents_of_published(placed: PlacedBatch, folder: Path, remaining: list[RenderRequest]) -> None:
    """A run that was killed after it had published a clip, and before it had removed its latents, left them."""
    published = {request.request_id for request in placed.batch.requests} - {r.request_id for r in remaining}
    for latents in (folder / INTERNAL / "spool").glob("*.safetensors"):
        if latents.stem in published:
            latents.unlink()


def _is_there(request: RenderRequest, key: str, publisher: Publisher, out: Output) -> bool:
    if out.mirror is None:
        return publisher.is_published(request, key)
    if out.mirror.holds(request.request_id, key):
        return True
    if staged := publisher.is_published(request, key):  # by a run that ended before it was uploaded
        out.mirror.upload(request.request_id)
    return staged


def _publish(publisher: Publisher, result: RenderResult, key: str) -> RenderResult:
    """The result as published: a video that is not what was asked for is a failed clip, not the end of the batch."""
    with output_errors():
        try:
            publisher.publish(result, key)
        except ValueError as error:
            result = replace(result, status="failed", video=None, error=f"the finished video was refused: {error}")
            publisher.publish(result, key)
    return result


@contextmanager
def _cluster(address: str | None) -> Iterator[Inventory]:
    if address is not None and address != "auto":
        check_head(address)  # before Ray is imported: it may have to use a token
    from ltx_dist.execution import ray_cluster

    inventory = ray_cluster.connect(address)
    try:
        yield inventory
    finally:
        ray_cluster.disconnect()


def _metrics(renderer: Renderer) -> Watcher:
    from ltx_dist.execution.ray_metrics import RayMetrics

    return RayMetrics(renderer.queue_lengths)


@contextmanager
def _executor(crew: Crew, uses_ray: bool) -> Iterator[Executor]:
    if uses_ray:
        from ltx_dist.execution.ray_executor import RayExecutor

        executor: Executor = RayExecutor(crew.specs(), hire=crew.hire)
    else:
        from ltx_dist.execution.local_executor import LocalExecutor

        executor = LocalExecutor(crew.specs())
    try:
        yield executor
    finally:
        executor.shutdown()


def _open_resumption(placed: PlacedBatch, folder: Path, remaining: list[RenderRequest]) -> Resumption:
    from ltx_dist.execution.resumption import open_resumption

    return open_resumption(placed, folder, remaining)


@contextmanager
def _closing(resumption: Resumption, console: Console) -> Iterator[None]:
    """In the end wait for what is still to be written, and say what could not be."""
    try:
        yield
    finally:
        for note in resumption.close():
            _say(console, note, "yellow")


def _announce(
    placed: PlacedBatch, folder: Path, remaining: list[RenderRequest], uses_ray: bool, console: Console
) -> None:
    batch, num_workers = placed.batch, len(placed.placement.workers)
    where = "in this process" if not uses_ray else "as Ray actors" if num_workers > 1 else "as a Ray actor"
    model = f"{batch.checkpoint.name} ({batch.preset.version}, {placed.precision})"
    workers = f"{placed.placement.layout}: {count(num_workers, 'worker')} {where}"
    _say(console, f"{count(len(batch.requests), 'clip')} · {model} · {workers}")
    if left_out := batch.left_out:
        names = ", ".join(left_out[:MAX_NAMED]) + (", ..." if len(left_out) > MAX_NAMED else "")
        _say(console, f"{count(len(left_out), 'clip')} without latents, not decoded again: {names}", "yellow")
    if num_there := len(batch.requests) - len(remaining):
        _say(console, f"{num_there} already there" + ("" if remaining else "; nothing to do"))
    if num_replaced := sum((folder / f"{request.request_id}.mp4").exists() for request in remaining):
        _say(console, f"{num_replaced} there from other settings, or damaged; will be replaced", "yellow")


def _say(console: Console, line: str, style: str = "") -> None:
    console.print(Text(line, style), soft_wrap=True)
