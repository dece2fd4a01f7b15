"""StageWorker: one device and its stages. A plain class; `ray_executor` makes an actor of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from ltx_dist.checkpoints.checkpoint import on_this_machine
from ltx_dist.engine.executor import WorkerStartError
from ltx_dist.messages import first_line
from ltx_dist.models.family import StageContext
from ltx_dist.pipeline.payloads import DecodedClip, Latents, StageOutput
from ltx_dist.pipeline.recipe import StageSpec
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.work import StageReport, WorkerState
from ltx_dist.weights.loading import DTYPES
from ltx_dist.worker.components import Components
from ltx_dist.worker.device import (
    is_lost,
    is_shortage,
    made_on,
    memory_in_use,
    notices_of_start,
    open_device,
    peak_bytes,
    refused_allocations,
    reset_peak,
    settle_kernels,
)
from ltx_dist.worker.host_stages import HostOperations
from ltx_dist.worker.oom_fallbacks import Attempts, Fallback
from ltx_dist.worker.spec import WorkerSpec
from ltx_dist.worker.stage_call import StageCall

LOG = logging.getLogger(__name__)
"""Logs to standard error, unless the program has configured logging."""

OnStep = Callable[[int], None]

ANOTHER_ALGORITHM = (
    "{}: a library was refused memory and took another algorithm, so low-order bits may differ from those of a device "
    "with more free memory (`memory_refused` in the sidecar); end other programs on the device, or set "
    "placement.memory_gb below what is free on it"
)


class StageWorker:
    """Loads the components of its stages, and no others, when it is created; then runs one stage per call, for one
    request or for several that share a pass.

    Raises WorkerStartError naming a component whose file is missing or wrong, or for which the device has no room.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._recipe = spec.family.recipe
        self._state = WorkerState(spec.worker.worker_id)
        self._set_threads()
        settle_kernels()
        self._device = open_device(spec.worker)
        try:
            checkpoint = on_this_machine(spec.checkpoint)
        except ValueError as error:
            raise WorkerStartError(f"worker {spec.worker.worker_id}: {error}") from error
        self._components = Components(spec.family, spec.worker, checkpoint, spec.precision, spec.storage, self._device)
        on_host = {
            stage.name: spec.family.operation(stage.operation)({}, checkpoint, self._device, DTYPES[spec.precision])
            for stage in self._recipe
            if stage.runs_on == "host"
        }
        self._host = HostOperations(self._recipe, on_host, spec.output, spec.worker.host_slots)
        self._refused_in: set[str] = set()
        self._attempts = Attempts(spec.family.traits_in(spec.storage), spec.worker.tiling, spec.exact)
        for line in notices_of_start(self._device, spec.worker):
            self._components.report(line)
        if self._load_at_start() is not None:
            # Try again with the weights on the host: those loaded so far leave the device.
            self._components.take_turns("the device cannot hold all components")
            if (error := self._load_at_start()) is not None:
                raise WorkerStartError(f"worker {spec.worker.worker_id}: {first_line(_describe(error))}")

    def _load_at_start(self) -> RuntimeError | None:
        """The out-of-memory error, without the frames that hold memory; None if everything is loaded.

        Raises WorkerStartError for anything else.
        """
        for name in self._components.loaded_at_start:
            try:
                self._components.load(name)
            except Exception as error:
                if isinstance(error, RuntimeError) and is_shortage(error, self._device):
                    return error.with_traceback(None)
                raise WorkerStartError(_start_failure(self._spec, name, error)) from error
        return None

    def run(
        self,
        stage: str,
        requests: Sequence[RenderRequest],
        *payloads: StageOutput | None,
        keys: Sequence[Mapping[str, str]] = (),
    ) -> tuple[*tuple[StageOutput | None, ...], StageReport]:
        """One output of the stage per request, and a report; on any error Nones, and a report with the error.

        payloads: for each request in turn, the outputs of the stage's inputs, in order; None if the request does not
        run that input's stage, or if the output is on this worker. Outputs of stages that not every request runs may be
        omitted for all. keys: for each request, the keys of its stages, the last of which goes into its mp4.
        If a host stage follows a device stage, the output stays on this worker, and None is returned for it.
        Host stages may be called in another thread while a device stage runs.

        This is the one place where a stage's errors are caught: a failed clip must not stop the others.
        """
        self._set_threads()
        call = StageCall.of(self._recipe, stage, requests, payloads, keys)
        return self._run_on_host(call) if call.stage.runs_on == "host" else self._run_on_device(call)

    def _run_on_device(self, call: StageCall) -> tuple[*tuple[StageOutput | None, ...], StageReport]:
        self._state = WorkerState(self._spec.worker.worker_id, call.stage.name, call.names)
        arrived = started = time.perf_counter()
        outputs: Sequence[StageOutput | None] = [None] * len(call.requests)
        digests: tuple[str, ...] = ()
        error, fallback = None, Fallback(tiling=self._spec.worker.tiling)
        try:
            with torch.inference_mode():
                shortage = self._bring(call.stage)
                reset_peak(self._device)
                started = time.perf_counter()
                outputs, digests, fallback = self._run_with_fallbacks(call, shortage)
        except Exception as caught:
            LOG.exception("%s of %s failed", call.stage.name, ", ".join(call.names))
            # Without its traceback: it and this frame would keep each other alive, and with them tensors on the device.
            error = caught.with_traceback(None)
        finally:
            self._state = WorkerState(self._spec.worker.worker_id)
        device_lost = error is not None and is_lost(self._device, error)
        return *outputs, StageReport(
            seconds=time.perf_counter() - started,
            load_seconds=started - arrived,
            error=None if error is None else _describe(error),
            latents_sha256=digests,
            peak_bytes=None if device_lost else peak_bytes(self._device),
            made_on="" if device_lost else made_on(self._device),
            memory_refused=call.stage.name in self._refused_in,
            device_lost=device_lost,
            fallback=fallback.name,
            changes_pixels=fallback.changes_pixels(self._spec.worker.tiling),
            takes_turns=self._components.takes_turns and self._spec.worker.residency == "resident",
            notices=self._components.notices(),
        )

    def _run_on_host(self, call: StageCall) -> tuple[*tuple[StageOutput | None, ...], StageReport]:
        started = time.perf_counter()
        outputs: Sequence[StageOutput | None] = [None] * len(call.requests)
        error = None
        try:
            outputs = self._host.run(call)
        except Exception as caught:
            LOG.exception("%s of %s failed", call.stage.name, ", ".join(call.names))
            error = _describe(caught)
        return *outputs, StageReport(seconds=time.perf_counter() - started, error=error)

    def state(self) -> WorkerState:
        """The worker's state; safe to call from another thread during `run`."""
        return replace(self._state, components=self._components.on_device(), memory_bytes=memory_in_use(self._device))

    def _bring(self, stage: StageSpec) -> RuntimeError | None:
        """Load what the stage needs before its time counts. Returns the out-of-memory error if it does not fit."""
        try:
            self._ready(stage)
        except RuntimeError as error:
            if not is_shortage(error, self._device):
                raise
            return error.with_traceback(None)
        return None

    def _ready(self, stage: StageSpec) -> Any:
        """The stage's operation; while its weights are being loaded, `state` says so."""
        self._state = replace(self._state, is_loading=True)
        try:
            return self._components.ready(stage)
        finally:
            self._state = replace(self._state, is_loading=False)

    def _run_with_fallbacks(
        self, call: StageCall, shortage: RuntimeError | None
    ) -> tuple[Sequence[StageOutput | None], tuple[str, ...], Fallback]:
        """Outputs, digests of latents and the attempt that made them; raises the last attempt's error.

        shortage: the out-of-memory error of bringing the weights, which counts as the failed planned attempt.
        """
        for attempt, fallback in enumerate(self._attempts.of(call, is_short=shortage is not None)):
            self._state = replace(self._state, step=0, attempt=attempt)
            try:
                if fallback.name is not None:
                    if shortage is not None:
                        names = ", ".join(call.names)
                        LOG.warning("%s: out of memory in %s; retrying: %s", names, call.stage.name, fallback.name)
                    self._components.prepare(call.stage, fallback)
                self._components.store_for(call.stage, fallback)
                outputs = self._run_stage(call, fallback)
                self._attempts.worked(call, fallback)
                return *outputs, fallback
            except RuntimeError as error:
                if not is_shortage(error, self._device):
                    raise
                # Without its traceback, whose frames hold the tensors that took the memory.
                shortage = error.with_traceback(None)
        assert shortage is not None
        raise shortage

    def _run_stage(self, call: StageCall, fallback: Fallback) -> tuple[Sequence[StageOutput | None], tuple[str, ...]]:
        context = StageContext(call.stage, self._on_step(call), fallback.tiling, self._spec.output, call.render_key)
        operation = self._ready(call.stage)
        refused = refused_allocations(self._device)
        try:
            outputs = operation.run(call.requests, call.inputs, context)
            digests = tuple(filter(None, map(_latents_sha256, outputs)))
            stays_here = self._host.begin(call, outputs)  # frames are decoded here
        finally:
            was_refused = refused_allocations(self._device) > refused
            if was_refused:
                self._refused_in.add(call.stage.name)
        if was_refused:
            self._components.report(ANOTHER_ALGORITHM.format(call.stage.name))
        return [None] * len(outputs) if stays_here else outputs, digests

    def _on_step(self, call: StageCall) -> OnStep:
        worker_id, names, num_steps = self._spec.worker.worker_id, call.names, call.num_steps
        attempt = self._state.attempt

        def on_step(step: int) -> None:
            self._state = WorkerState(worker_id, call.stage.name, names, step, num_steps, attempt=attempt)

        return on_step

    def _set_threads(self) -> None:
        # OpenMP has one setting per calling thread, and an actor's calls may run in another thread than its creation.
        if self._spec.worker.threads is not None:
            torch.set_num_threads(self._spec.worker.threads)


def _latents_sha256(output: StageOutput) -> str:
    """SHA-256 of the latents that an output holds, or was made from; empty if there are none.

    A decoded clip reports it again, because a clip resumed at its decode has no other record of its latents.
    """
    if isinstance(output, DecodedClip):
        return output.latents_sha256
    return output.sha256() if isinstance(output, Latents) else ""


def _start_failure(spec: WorkerSpec, component: str, error: Exception) -> str:
    """The message for a component that could not be loaded: its name, and the first line of the error."""
    return f"worker {spec.worker.worker_id}: {component} of {spec.checkpoint.name}: {first_line(_describe(error))}"


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip()
