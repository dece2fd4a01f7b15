"""One run of a batch: from requests to published clips and `run.json`. The path that every command takes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape

from ltx_dist.batch import Batch
from ltx_dist.checkpoint import checkpoint_digest
from ltx_dist.devices import local_inventory
from ltx_dist.execution.executor import Executor, WorkerStartError
from ltx_dist.execution.renderer import Renderer
from ltx_dist.output.lock import folder_lock
from ltx_dist.output.progress import make_progress
from ltx_dist.output.publisher import Publisher
from ltx_dist.output.run_record import Counts, build_run_record, write_run_record
from ltx_dist.scheduling.placement import Inventory, Placement
from ltx_dist.scheduling.scheduler import Scheduler
from ltx_dist.types import Completion, RenderRequest, RenderResult

ExecutorKind = Literal["auto", "local", "ray"]

EXIT_DONE = 0
EXIT_INTERNAL = 1
EXIT_SOME_FAILED = 3
EXIT_OUTPUT = 74
EXIT_STOPPED = 75


@dataclass
class Run:
    """What became of a batch so far; written as `run.json` however the run ends."""

    placement: Placement
    submitted: int
    skipped: int = 0
    done: int = 0
    failed: int = 0
    exit_code: int = EXIT_INTERNAL
    completions: list[Completion] = field(default_factory=list)

    def count(self, result: RenderResult) -> None:
        if result.status == "done":
            self.done += 1
        else:
            self.failed += 1

    def write(self, folder: Path) -> None:
        """A folder that cannot be written was reported already, with its own exit code."""
        done = self.skipped + self.done
        counts = Counts(self.submitted, done, self.failed, self.submitted - done - self.failed, self.skipped)
        with suppress(OSError):
            write_run_record(folder, build_run_record(counts, self.placement, self.completions, self.exit_code))


def render_batch(batch: Batch, folder: Path, kind: ExecutorKind, address: str | None, console: Console) -> int:
    """Render what the folder does not hold yet; returns the exit code, which `run.json` holds too.

    Raises ValueError for what can still be wrong with the input now: an address, a device, a layout, or a folder
    that another run is writing to.
    """
    inventory = local_inventory()
    try:
        with ExitStack() as held:
            with _output_errors():
                held.enter_context(folder_lock(folder))
            uses_ray = _uses_ray(batch, kind, address, inventory)
            if uses_ray:
                inventory = held.enter_context(_cluster(address))
            return _run(batch, folder, inventory, uses_ray, console)
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


def _run(batch: Batch, folder: Path, inventory: Inventory, uses_ray: bool, console: Console) -> int:
    placement = batch.placement(inventory)
    precision = batch.precision(inventory)
    digest = checkpoint_digest(batch.checkpoint)
    keys = batch.render_keys(digest, precision)
    run = Run(placement, submitted=len(batch.requests))
    try:
        with _output_errors():
            publisher = Publisher(folder, {"name": batch.checkpoint.name, "sha256": digest})
            remaining = [r for r in batch.requests if not publisher.is_published(r.request_id, keys[r.request_id])]
        run.skipped = len(batch.requests) - len(remaining)
        _announce(batch, placement, precision, run.skipped, uses_ray, console)
        if remaining:
            with _stop_on_sigterm(), _executor(batch, placement, precision, digest, uses_ray) as executor:
                _render(remaining, keys, executor, publisher, run, console)
        run.exit_code = EXIT_SOME_FAILED if run.failed else EXIT_DONE
    except KeyboardInterrupt:
        run.exit_code = EXIT_STOPPED
        console.print("stopped; run the same command again to go on")
    except OutputError:
        run.exit_code = EXIT_OUTPUT
        raise
    finally:
        run.write(folder)
    return run.exit_code


class OutputError(Exception):
    """The output folder cannot be written: full, read-only or gone. What was published stays."""


@contextmanager
def _output_errors() -> Iterator[None]:
    """Tell these apart from every other OSError, a checkpoint that cannot be read or a lost connection."""
    try:
        yield
    except OSError as error:
        raise OutputError(error) from error


@contextmanager
def _cluster(address: str | None) -> Iterator[Inventory]:
    from ltx_dist.execution import ray_executor

    inventory = ray_executor.connect(address)
    try:
        yield inventory
    finally:
        ray_executor.disconnect()


@contextmanager
def _executor(
    batch: Batch, placement: Placement, precision: str, digest: dict[str, str], uses_ray: bool
) -> Iterator[Executor]:
    from ltx_dist.execution.worker import WorkerSpec

    specs = [
        WorkerSpec(worker, batch.checkpoint, digest, precision, batch.config.output) for worker in placement.workers
    ]
    if uses_ray:
        from ltx_dist.execution.ray_executor import RayExecutor as Chosen
    else:
        from ltx_dist.execution.local_executor import LocalExecutor as Chosen
    executor = Chosen(specs)
    try:
        yield executor
    finally:
        executor.shutdown()


def _render(
    requests: list[RenderRequest],
    keys: dict[str, str],
    executor: Executor,
    publisher: Publisher,
    run: Run,
    console: Console,
) -> None:
    with make_progress(run.submitted, run.skipped, console) as progress:
        renderer = Renderer(Scheduler(run.placement), executor, progress.worker_states)
        run.completions = renderer.completions
        for result in renderer.render(requests):
            with _output_errors():
                published = _publish(publisher, result, keys[result.request.request_id])
            run.count(published)
            progress.finished(published)


def _publish(publisher: Publisher, result: RenderResult, key: str) -> RenderResult:
    """The result as published: a video that is not what was asked for is a failed clip, not the end of the batch."""
    try:
        publisher.publish(result, key)
    except ValueError as error:
        result = replace(result, status="failed", video=None, error=f"the finished video was refused: {error}")
        publisher.publish(result, key)
    return result


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


def _announce(
    batch: Batch, placement: Placement, precision: str, skipped: int, uses_ray: bool, console: Console
) -> None:
    where = "Ray actors" if uses_ray else "this process"
    already = f", {skipped} already there" if skipped else ""
    console.print(
        f"{len(batch.requests)} clips{already} · {escape(batch.checkpoint.name)} ({batch.preset.version}, {precision}) "
        f"· {placement.layout}: {len(placement.workers)} workers as {where}",
        highlight=False,
    )
