"""One run of a batch: from requests to published clips and `run.json`. The path that every command takes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.markup import escape

from ltx_dist.batch import Batch, PlacedBatch, place_batch
from ltx_dist.devices import local_inventory
from ltx_dist.execution.executor import Executor, WorkerStartError
from ltx_dist.execution.renderer import Renderer
from ltx_dist.output.files import OutputError, output_errors
from ltx_dist.output.lock import folder_lock
from ltx_dist.output.progress import LiveProgress, make_progress
from ltx_dist.output.publisher import Publisher
from ltx_dist.output.run_record import RunProgress
from ltx_dist.scheduling.placement import Inventory
from ltx_dist.scheduling.scheduler import Scheduler
from ltx_dist.types import RenderRequest, RenderResult

if TYPE_CHECKING:
    from ltx_dist.execution.resumption import Resumption

ExecutorKind = Literal["auto", "local", "ray"]

EXIT_DONE = 0
EXIT_INTERNAL = 1
EXIT_SOME_FAILED = 3
EXIT_OUTPUT = 74
EXIT_STOPPED = 75


def render_batch(batch: Batch, folder: Path, kind: ExecutorKind, address: str | None, console: Console) -> int:
    """Render what the folder does not hold yet; returns the exit code, which `run.json` holds too.

    Raises ValueError for what can still be wrong with the input now: an address, a device, a layout, or a folder
    that another run is writing to.
    """
    inventory = local_inventory()
    try:
        with ExitStack() as held:
            with output_errors():
                held.enter_context(folder_lock(folder))
            uses_ray = _uses_ray(batch, kind, address, inventory)
            if uses_ray:
                inventory = held.enter_context(_cluster(address))
            return _run(place_batch(batch, inventory), folder, uses_ray, console)
    except OutputError as error:
        console.print(f"[red]the output could not be written:[/] {escape(str(error))}", highlight=False)
        return EXIT_OUTPUT
    except WorkerStartError as error:
        console.print(f"[red]stopped:[/] {escape(str(error))}", highlight=False)
        return EXIT_INTERNAL


def _uses_ray(batch: Batch, kind: ExecutorKind, address: str | None, inventory: Inventory) -> bool:
    """`auto` is Ray where there is a cluster to join or more than one worker to keep busy."""
    if kind != "auto":
        return kind == "ray"
    return bool(address or os.environ.get("RAY_ADDRESS")) or len(batch.placement(inventory).workers) > 1


def _run(placed: PlacedBatch, folder: Path, uses_ray: bool, console: Console) -> int:
    run = RunProgress(placed.placement, submitted=len(placed.batch.requests), exit_code=EXIT_INTERNAL)
    try:
        with output_errors():
            publisher = Publisher(folder, {"name": placed.batch.checkpoint.name, "sha256": placed.digest})
            remaining = _unpublished(placed, publisher)
        run.skipped = run.submitted - len(remaining)
        _announce(placed, run.skipped, uses_ray, console)
        if remaining:
            with (
                _resumption(placed, folder) as resumption,
                _stop_on_sigterm(),
                _executor(placed, uses_ray) as executor,
                make_progress(run.submitted, run.skipped, console) as progress,
            ):
                # Asking every worker what it does costs a call each; nobody looks in a log.
                watch = progress.worker_states if isinstance(progress, LiveProgress) else None
                renderer = Renderer(Scheduler(placed.placement), executor, watch, resumption)
                run.completions = renderer.completions
                for result in renderer.render(remaining):
                    published = _publish(publisher, result, placed.render_key(result.request))
                    run.count(published)
                    progress.finished(published)
        run.exit_code = EXIT_SOME_FAILED if run.failed else EXIT_DONE
    except KeyboardInterrupt:
        run.exit_code = EXIT_STOPPED
        console.print("stopped; run the same command again to go on")
    except OutputError:
        run.exit_code = EXIT_OUTPUT
        raise
    finally:
        with suppress(OSError):  # a folder that cannot be written was reported already
            run.write(folder)
    return run.exit_code


def _unpublished(placed: PlacedBatch, publisher: Publisher) -> list[RenderRequest]:
    return [
        request
        for request in placed.batch.requests
        if not publisher.is_published(request.request_id, placed.render_key(request))
    ]


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
    from ltx_dist.execution import ray_executor

    inventory = ray_executor.connect(address)
    try:
        yield inventory
    finally:
        ray_executor.disconnect()


@contextmanager
def _executor(placed: PlacedBatch, uses_ray: bool) -> Iterator[Executor]:
    from ltx_dist.execution.worker import WorkerSpec

    if uses_ray:
        from ltx_dist.execution.ray_executor import RayExecutor as Chosen
    else:
        from ltx_dist.execution.local_executor import LocalExecutor as Chosen
    batch = placed.batch
    executor = Chosen(
        [
            WorkerSpec(worker, batch.checkpoint, placed.digest, placed.precision, batch.config.output)
            for worker in placed.placement.workers
        ]
    )
    try:
        yield executor
    finally:
        executor.shutdown()


@contextmanager
def _resumption(placed: PlacedBatch, folder: Path) -> Iterator[Resumption]:
    from ltx_dist.execution.resumption import Resumption
    from ltx_dist.output.spool import Spool

    recovery = placed.batch.config.recovery
    with output_errors():
        spool = Spool(folder / ".ltx-dist" / "spool", int(recovery.spool_gb * 1e9))
    resumption = Resumption(spool, placed.stage_key, recovery.keep_latents)
    try:
        yield resumption
    finally:
        resumption.close()


@contextmanager
def _stop_on_sigterm() -> Iterator[None]:
    """SIGTERM ends a batch as Ctrl-C does. Installed after Ray is up: `ray.init` sets a handler of its own."""

    def stop(signum: int, frame: Any) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _announce(placed: PlacedBatch, skipped: int, uses_ray: bool, console: Console) -> None:
    batch, workers = placed.batch, len(placed.placement.workers)
    where = "in this process" if not uses_ray else "as a Ray actor" if workers == 1 else "as Ray actors"
    console.print(
        f"{len(batch.requests)} clips{f', {skipped} already there' if skipped else ''} · "
        f"{escape(batch.checkpoint.name)} ({batch.preset.version}, {placed.precision}) · "
        f"{placed.placement.layout}: {workers} {'worker' if workers == 1 else 'workers'} {where}",
        highlight=False,
    )
