"""`render`: renders a batch in the background and yields its clips as they are published."""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike, fspath
from types import TracebackType
from typing import Any, Literal, Self, get_args

from rich.console import Console

from ltx_dist.api.clip import Clip
from ltx_dist.api.errors import input_errors
from ltx_dist.api.inputs import Config, Prompts, batch_of
from ltx_dist.api.published import Progress, PublishedClips
from ltx_dist.api.result import Result
from ltx_dist.cluster.given_address import GivenAddress, given_address
from ltx_dist.engine.workers import WorkersLostError
from ltx_dist.messages import clean_lines, show
from ltx_dist.report.event_log import Events
from ltx_dist.report.run_record import RunProgress
from ltx_dist.run.batch import Batch
from ltx_dist.run.run import ExecutorKind, render_batch
from ltx_dist.run.stop import EXIT_STOPPED, Stop
from ltx_dist.store.output import Output, open_output

ONE_AT_A_TIME = threading.Lock()
"""Held by the run that renders in this process; others wait for it. Some decoders draw noise from torch's global
generator, and a run that has started a Ray cluster also shuts it down."""


def render(
    prompts: Prompts,
    out: str | PathLike[str],
    *,
    model: str | PathLike[str] | None = None,
    config: Config = None,
    vary: Mapping[str, Any] | None = None,
    executor: ExecutorKind = "auto",
    address: str | None = None,
    progress: Literal["auto"] | bool = "auto",
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> Run:
    """Start rendering prompts into a folder or URL, and return at once. Clips that are up to date are kept.

    prompts: the path of a prompt file, or an iterable of texts and mappings with the fields of a row.
    model: short for `model.checkpoint` of the config.
    config: the path of a YAML file, a mapping or a RenderConfig.
    vary: values of fields that every prompt is rendered with, such as `{"seed": range(5)}` or `{"guidance_scale": [1,
        3, 5]}`; with several fields, every combination is rendered.
    executor: `local` uses this process, `ray` uses actors, `auto` uses Ray for a cluster or several workers.
    address: of a Ray cluster to join; if the program has called `ray.init()`, its session is used.
    progress: `auto` shows it in a terminal or notebook, True always prints it.
    on_event: called in threads of the run with each event of `--json-events`; an exception that it raises ends the run.

    Raises InputError with all errors in prompts and settings. Errors that occur later, such as a folder in use, are
    raised by iterating over the run and by `result()`.
    """
    with input_errors():
        if executor not in get_args(ExecutorKind):
            raise ValueError(f"executor: {show(executor)} is not one of {', '.join(get_args(ExecutorKind))}")
        batch, output = batch_of(prompts, model, config, vary), open_output(fspath(out), "out")
        return Run(batch, output, executor, given_address(address, "address"), _console(progress), on_event)


class Run:
    """A batch that is being rendered in a separate thread.

    Iterating yields every clip, done or failed, as soon as it is published; clips of earlier runs come first.
    Leaving a `with` waits for the end of the run; an exception in it, or Ctrl-C while waiting for the run, stops it.
    """

    def __init__(
        self,
        batch: Batch,
        out: Output,
        executor: ExecutorKind,
        given: GivenAddress,
        console: Console,
        on_event: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        self._batch, self._out, self._console = batch, out, console
        self._executor: ExecutorKind = executor
        self._given, self._on_event = given, on_event
        self._stop = Stop()
        self._stop.interrupts = False
        self._clips = PublishedClips(out)
        self._record: RunProgress | None = None
        self._error: BaseException | None = None
        self._is_error_known = False
        self._thread = threading.Thread(target=self._render, name="ltx_dist.render")
        self._thread.start()

    def __iter__(self) -> Iterator[Clip]:
        position = 0
        while True:
            with self._interruptible():
                clip = self._clips.wait_for(position)
            if clip is None:
                break
            yield clip
            position += 1
        self._raise()

    @property
    def progress(self) -> Progress:
        return self._clips.progress(len(self._batch.names))

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def stop(self, seconds: float | None = None) -> None:
        """Ask the run to stop, and return at once. Nothing is lost: the same call of `render` resumes.

        Clips whose frames are there are published. A stage that runs in this process ends first; one in an actor is cut
        off after `seconds`, which are `recovery.grace_seconds` of the config if not given.
        """
        self._stop.ask(self._batch.config.recovery.grace_seconds if seconds is None else seconds)

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the end of the run, and return its clips in the order of the prompts.

        Failed clips are included; those that a stop left out are not. timeout: in seconds; None waits forever. Raises
        TimeoutError, InputError, OutputError if the output cannot be written, WorkerStartError or SystemicError if no
        clip can be rendered with this setup, and WorkersLostError if no worker is left.
        """
        with self._interruptible():
            self._thread.join(timeout)
        if self.is_running:
            raise TimeoutError(f"the run has not ended within {timeout} s")
        self._raise()
        by_name = {clip.name: clip for clip in self._clips.all()}
        found = [by_name[name] for name in self._batch.names if name in by_name]
        exit_code = EXIT_STOPPED if self._record is None or self._record.exit_code is None else self._record.exit_code
        warnings = self._clips.run.warnings if self._clips.run else self._batch.warnings
        return Result(found, [name for name in self._batch.names if name not in by_name], exit_code, tuple(warnings))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            self.stop()
        with self._interruptible():
            self._thread.join()

    def __del__(self) -> None:
        if getattr(self, "_error", None) is not None and not self._is_error_known:
            logging.getLogger("ltx_dist").error(
                "a run ended with an error that was never retrieved: %s", clean_lines(str(self._error))
            )

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Stop the run on Ctrl-C while somebody waits for it."""
        try:
            yield
        except KeyboardInterrupt:
            self.stop()
            raise

    def _raise(self) -> None:
        self._thread.join()
        if self._error is not None:
            self._is_error_known = True
            raise self._error

    def _render(self) -> None:
        followers = [self._clips, *([Events(self._on_event)] if self._on_event else [])]
        try:
            with input_errors(), _turn(self._stop):
                self._record = render_batch(
                    self._batch, self._out, self._executor, self._given, self._stop, self._console, followers,
                    uses_session=True,
                )  # fmt: skip
        except BaseException as error:
            if self._stop.why:
                self._error = WorkersLostError(f"{self._stop.why}; the same call resumes")
            elif not isinstance(error, KeyboardInterrupt):  # else it was stopped
                self._error = error
        finally:
            self._clips.end()


@contextmanager
def _turn(stop: Stop) -> Iterator[None]:
    """Wait until no other run of this process renders. Raises KeyboardInterrupt if this run is stopped before."""
    while not ONE_AT_A_TIME.acquire(timeout=0.2):
        if stop.is_asked:
            raise KeyboardInterrupt
    try:
        yield
    finally:
        ONE_AT_A_TIME.release()


def _console(progress: Literal["auto"] | bool) -> Console:
    """The console for progress: a live view in a terminal, lines in a notebook, a quiet one otherwise."""
    if progress not in ("auto", True, False):
        raise ValueError(f"progress: {show(progress)} is not auto, True or False")
    console = Console(stderr=True)
    if progress is not False and console.is_jupyter:
        return Console(file=sys.stdout, force_jupyter=False, force_terminal=False, width=100)
    if progress is True or (progress == "auto" and console.is_terminal):
        return console
    return Console(quiet=True, file=io.StringIO())
