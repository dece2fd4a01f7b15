"""StageWorker: one device and its stages. A plain class; `ray_executor` makes an actor of it."""

from __future__ import annotations

import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import torch

from ltx_dist.checkpoints.checkpoint import Checkpoint, on_this_machine
from ltx_dist.engine.executor import WorkerStartError
from ltx_dist.models.family import Family, StageContext, family_of
from ltx_dist.pipeline.keys import render_key
from ltx_dist.pipeline.payloads import DecodedClip, Latents, StageOutput
from ltx_dist.pipeline.recipe import StageSpec
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import PLAIN, UNTILED, DecodeTiling, Mp4Settings, Storage
from ltx_dist.pipeline.work import StageReport, WorkerState
from ltx_dist.pipeline.worker import Worker
from ltx_dist.weights.loading import DTYPES
from ltx_dist.worker.components import Components
from ltx_dist.worker.device import (
    is_lost,
    is_shortage,
    memory_in_use,
    notices_of_start,
    open_device,
    peak_bytes,
    reset_peak,
)
from ltx_dist.worker.first_calls import settle_kernels
from ltx_dist.worker.host_stages import HostStages
from ltx_dist.worker.oom_fallbacks import Fallback, fallbacks

OnStep = Callable[[int], None]

Shape = tuple[int, int, int, int]
"""Requests in a pass, height, width and frames."""

Inputs = Mapping[str, StageOutput]
"""What earlier stages made for a request, by stage name."""


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """All a worker needs to start, on any machine: small and picklable.

    exact: a clip that runs out of memory fails rather than being made with other pixels. family_override: in place of
    the checkpoint's own.
    """

    worker: Worker
    checkpoint: Checkpoint
    checkpoint_digest: dict[str, str]
    precision: str
    output: Mp4Settings
    storage: Storage = PLAIN
    exact: bool = False
    family_override: Family | None = None

    @property
    def family(self) -> Family:
        return self.family_override or family_of(self.checkpoint)


class StageWorker:
    """Loads the components of its stages, and no others, when it is made; then runs one stage per call, of one request
    or of several that share a pass.

    Raises WorkerStartError naming the component: a file that is missing or wrong, a device without room.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._recipe = spec.family.recipe
        self._state = WorkerState(spec.worker.worker_id)
        self._set_threads()
        settle_kernels()
        self._device = open_device(spec.worker)
        self._host = HostStages(spec.worker.host_slots)
        try:
            checkpoint = on_this_machine(spec.checkpoint)
        except ValueError as error:
            raise WorkerStartError(f"worker {spec.worker.worker_id}: {error}") from error
        self._components = Components(spec.family, spec.worker, checkpoint, spec.precision, spec.storage, self._device)
        self._host_operations = {
            stage.name: spec.family.operation(stage.operation)({}, checkpoint, self._device, DTYPES[spec.precision])
            for stage in self._recipe
            if stage.runs_on == "host"
        }
        for line in notices_of_start(self._device, spec.worker):
            self._components.report(line)
        self._shortages: Counter[tuple[str, Shape, str]] = Counter()
        if self._load_at_start() is not None:
            # Again, with the weights on the host: what is loaded by then leaves the device.
            self._components.take_turns("there is no room on the device for all components")
            if (error := self._load_at_start()) is not None:
                raise WorkerStartError(f"worker {spec.worker.worker_id}: {_describe(error).splitlines()[0]}")

    def _load_at_start(self) -> RuntimeError | None:
        """What ran out of memory, without the frames that hold it; None if all is loaded.

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
        self, stage: str, requests: Sequence[RenderRequest], *payloads: StageOutput | None
    ) -> tuple[*tuple[StageOutput | None, ...], StageReport]:
        """One output of the stage per request, and a report; on any error Nones and a report with it.

        payloads: of each request in turn the outputs of the stage's inputs, in order; None where the request does not
        run that stage, or where its output is on this worker. Those of stages that not every request runs may be left
        out for all. The output of a device stage that host stages follow stays there: None is returned for it. Host
        stages may be called in another thread while a device stage runs.

        This is the one place where a stage's errors are caught: a failed clip must not stop the others.
        """
        self._set_threads()
        spec = self._recipe[stage]
        names = spec.inputs
        if len(payloads) < len(requests) * len(names):
            names = self._recipe.always[stage].inputs
        assert len(payloads) == len(requests) * len(names), f"{stage} reads {spec.inputs} of each request"
        given = iter(payloads)
        inputs = [{name: payload for name in names if (payload := next(given)) is not None} for _ in requests]
        if spec.runs_on == "host":
            return self._run_on_host(spec, requests, inputs)
        return self._run_on_device(spec, requests, inputs)

    def _run_on_device(
        self, stage: StageSpec, requests: Sequence[RenderRequest], inputs: Sequence[Inputs]
    ) -> tuple[*tuple[StageOutput | None, ...], StageReport]:
        self._state = WorkerState(self._spec.worker.worker_id, stage.name, _names(requests))
        arrived = started = time.perf_counter()
        outputs: Sequence[StageOutput | None] = [None] * len(requests)
        digests: tuple[str, ...] = ()
        error, fallback = None, Fallback(tiling=self._spec.worker.tiling)
        try:
            with torch.inference_mode():
                shortage = self._bring(stage)
                reset_peak(self._device)
                started = time.perf_counter()
                outputs, digests, fallback = self._run_with_fallbacks(stage, requests, inputs, shortage)
        except Exception as caught:
            traceback.print_exc(file=sys.stderr)
            error = caught
        finally:
            self._state = WorkerState(self._spec.worker.worker_id)
        device_lost = error is not None and is_lost(self._device, error)
        return *outputs, StageReport(
            seconds=time.perf_counter() - started,
            load_seconds=started - arrived,
            error=None if error is None else _describe(error),
            latents_sha256=digests,
            peak_bytes=None if device_lost else peak_bytes(self._device),
            device_lost=device_lost,
            fallback=fallback.name,
            changes_pixels=fallback.changes_pixels(self._spec.worker.tiling),
            takes_turns=self._components.takes_turns and self._spec.worker.residency == "resident",
            notices=self._components.notices(),
        )

    def _run_on_host(
        self, stage: StageSpec, requests: Sequence[RenderRequest], inputs: Sequence[Inputs]
    ) -> tuple[*tuple[StageOutput | None, ...], StageReport]:
        started = time.perf_counter()
        outputs: list[StageOutput | None] = [None] * len(requests)
        error = None
        try:
            outputs = [
                self._host_output(stage, request, given) for request, given in zip(requests, inputs, strict=True)
            ]
        except Exception as caught:
            traceback.print_exc(file=sys.stderr)
            error = _describe(caught)
        return *outputs, StageReport(seconds=time.perf_counter() - started, error=error)

    def state(self) -> WorkerState:
        """Safe to call from another thread while `run` works."""
        return replace(self._state, components=self._components.on_device(), memory_bytes=memory_in_use(self._device))

    def _bring(self, stage: StageSpec) -> RuntimeError | None:
        """Load what the stage needs before its time begins to count. Returns the shortage if there is no room."""
        try:
            self._ready(stage)
        except RuntimeError as error:
            if not is_shortage(error, self._device):
                raise
            return error.with_traceback(None)
        return None

    def _ready(self, stage: StageSpec) -> Any:
        """The stage's operation; while its weights are loaded the state reports that."""
        self._state = replace(self._state, is_loading=True)
        try:
            return self._components.ready(stage)
        finally:
            self._state = replace(self._state, is_loading=False)

    def _run_with_fallbacks(
        self,
        stage: StageSpec,
        requests: Sequence[RenderRequest],
        inputs: Sequence[Inputs],
        shortage: RuntimeError | None,
    ) -> tuple[Sequence[StageOutput | None], tuple[str, ...], Fallback]:
        """Outputs, digests of latents and the attempt that made them; raises the last attempt's error.

        shortage: of bringing the weights, so that the attempt as planned is over. What clips of a shape needed twice is
        what the next one begins with.
        """
        for fallback in self._attempts(stage, requests, is_short=shortage is not None):
            try:
                if fallback.name is not None:
                    names = ", ".join(_names(requests))
                    if shortage is not None:
                        print(f"{names}: out of memory in {stage.name}; retrying: {fallback.name}", file=sys.stderr)
                    self._components.prepare(stage, fallback)
                self._components.store_for(stage, fallback)
                outputs = self._run_stage(stage, requests, inputs, fallback)
                self._shortages[stage.name, _shape(requests), fallback.name or ""] += 1
                return *outputs, fallback
            except RuntimeError as error:
                if not is_shortage(error, self._device):
                    raise
                # Without its frames, which hold the tensors that took the memory.
                shortage = error.with_traceback(None)
        assert shortage is not None
        raise shortage

    def _attempts(self, stage: StageSpec, requests: Sequence[RenderRequest], is_short: bool) -> Sequence[Fallback]:
        traits = [self._spec.family.traits[name] for name in stage.components]
        attempts = fallbacks(traits, self._spec.worker.tiling, self._spec.exact, len(requests) > 1)
        needed = [self._shortages[stage.name, _shape(requests), attempt.name or ""] >= 2 for attempt in attempts]
        first = next((number for number, often in enumerate(needed) if often and number), 0)
        return attempts[max(first, is_short) :]

    def _run_stage(
        self,
        stage: StageSpec,
        requests: Sequence[RenderRequest],
        inputs: Sequence[Inputs],
        fallback: Fallback,
    ) -> tuple[Sequence[StageOutput | None], tuple[str, ...]]:
        context = self._context(stage, self._on_step(stage, requests), fallback.tiling)
        outputs = self._ready(stage).run(requests, inputs, context)
        digests = tuple(filter(None, map(_latents_sha256, outputs)))
        if not (following := self._recipe.host_stages_after(stage.name)):
            return outputs, digests
        for request, given, output in zip(requests, inputs, outputs, strict=True):
            self._begin_on_host(self._recipe[following[0]], request, given, output, stage.name)
        return [None] * len(requests), digests

    def _begin_on_host(
        self, first: StageSpec, request: RenderRequest, inputs: Inputs, output: StageOutput, made_by: str
    ) -> None:
        """Begin the host stage that follows; what the device stage made stays on this worker."""

        def run(fed: StageOutput) -> StageOutput:
            return self._run_host_operation(first, request, {**inputs, made_by: fed})

        self._host.begin(request.request_id, first.name, output, run)

    def _host_output(self, stage: StageSpec, request: RenderRequest, inputs: Inputs) -> StageOutput:
        """Wait for a host stage that has begun, or run it here."""
        if self._host.has_begun(request.request_id, stage.name):
            return self._host.result(request.request_id, stage.name)
        return self._run_host_operation(stage, request, inputs)

    def _run_host_operation(self, stage: StageSpec, request: RenderRequest, outputs: Inputs) -> StageOutput:
        inputs = {name: outputs[name] for name in stage.inputs if name in outputs}
        (output,) = self._host_operations[stage.name].run([request], [inputs], self._context(stage))
        return output

    def _context(
        self, stage: StageSpec, on_step: OnStep = lambda step: None, tiling: DecodeTiling = UNTILED
    ) -> StageContext:
        return StageContext(stage, on_step, tiling, self._spec.output, self._render_key)

    def _render_key(self, request: RenderRequest) -> str:
        spec = self._spec
        return render_key(
            request,
            spec.checkpoint_digest,
            spec.checkpoint.pipeline_class,
            spec.precision,
            spec.output,
            spec.storage,
            spec.worker.tiling.of(
                *request.decoded_size, request.num_frames, spec.checkpoint.temporal_compression_ratio
            ),
            spec.worker.batch_size,
        )

    def _on_step(self, stage: StageSpec, requests: Sequence[RenderRequest]) -> OnStep:
        worker_id, names = self._spec.worker.worker_id, _names(requests)
        num_steps: int = attrgetter(stage.steps)(requests[0]) if stage.steps else 0

        def on_step(step: int) -> None:
            self._state = WorkerState(worker_id, stage.name, names, step, num_steps)

        return on_step

    def _set_threads(self) -> None:
        # Per calling thread in OpenMP, and an actor's calls need not run in the thread that made it.
        if self._spec.worker.threads is not None:
            torch.set_num_threads(self._spec.worker.threads)


def _shape(requests: Sequence[RenderRequest]) -> Shape:
    """What decides how much memory a pass takes, as far as requests tell."""
    one = requests[0]
    return len(requests), one.height, one.width, one.num_frames


def _names(requests: Sequence[RenderRequest]) -> tuple[str, ...]:
    return tuple(request.request_id for request in requests)


def _latents_sha256(output: StageOutput) -> str:
    """Digest of the latents that an output is, or was made from; empty if there are none.

    A decoded clip reports it again: a clip resumed at its decode has no other record of its latents.
    """
    if isinstance(output, DecodedClip):
        return output.latents_sha256
    return output.sha256() if isinstance(output, Latents) else ""


def _start_failure(spec: WorkerSpec, component: str, error: Exception) -> str:
    """One line: libraries say what is wrong in their first."""
    first_line = _describe(error).splitlines()[0]
    return f"worker {spec.worker.worker_id}: {component} of {spec.checkpoint.name}: {first_line}"


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip()
