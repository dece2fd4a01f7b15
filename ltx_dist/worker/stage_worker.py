"""StageWorker: one device and its stages. A plain class; `ray_executor` makes an actor of it."""

from __future__ import annotations

import hashlib
import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

from ltx_dist.checkpoints.checkpoint import Checkpoint, on_this_machine
from ltx_dist.engine.executor import WorkerStartError
from ltx_dist.media.mp4 import encode_video
from ltx_dist.pipeline.keys import render_key
from ltx_dist.pipeline.payloads import EncodedVideo, Latents, StageOutput
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.stages import COMPONENT_OF_STAGE, Stage
from ltx_dist.pipeline.storage import PLAIN, Mp4Settings, Storage
from ltx_dist.pipeline.work import StageReport, WorkerState
from ltx_dist.pipeline.worker import Worker
from ltx_dist.worker.components import Components
from ltx_dist.worker.device import is_lost, is_shortage, memory_in_use, open_device, peak_bytes, reset_peak
from ltx_dist.worker.ladder import Rung, rungs
from ltx_dist.worker.video_encoders import Frames, VideoEncoders


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """All a worker needs to start, on any machine: small and picklable.

    exact: a clip that finds no memory fails rather than be made with other pixels.
    """

    worker: Worker
    checkpoint: Checkpoint
    checkpoint_digest: dict[str, str]
    precision: str
    output: Mp4Settings
    storage: Storage = PLAIN
    exact: bool = False


class StageWorker:
    """Loads the components of its stages, and no others, when it is made; then runs one stage a call, of one request or
    of several that share a pass.

    Raises WorkerStartError naming the component: a file that is missing or wrong, a device without room.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._state = WorkerState(spec.worker.worker_id)
        self._set_threads()
        self._device = open_device(spec.worker)
        self._videos = VideoEncoders(spec.worker.video_slots) if spec.worker.video_slots else None
        try:
            checkpoint = on_this_machine(spec.checkpoint)
        except ValueError as error:
            raise WorkerStartError(f"worker {spec.worker.worker_id}: {error}") from error
        self._components = Components(spec.worker, checkpoint, spec.precision, spec.storage, self._device)
        for stage in self._components.loaded_at_start:
            try:
                self._components.load(stage)
            except Exception as error:
                raise WorkerStartError(_start_failure(spec, stage, error)) from error

    def run(
        self, stage: Stage, requests: Sequence[RenderRequest], *payloads: StageOutput | None
    ) -> tuple[*tuple[StageOutput | None, ...], StageReport]:
        """Outputs of the stage, one a request with its payload, and a report; on any error Nones and a report with it.

        This is the one place where a stage's errors are caught: a failed clip must not stop the others.
        """
        self._set_threads()
        self._state = WorkerState(self._spec.worker.worker_id, stage, _names(requests))
        arrived = started = time.perf_counter()
        outputs: Sequence[StageOutput | None] = [None] * len(requests)
        digests: tuple[str, ...] = ()
        error, rung = None, None
        try:
            with torch.inference_mode():
                self._bring(stage)
                reset_peak(self._device)
                started = time.perf_counter()
                outputs, digests, rung = self._climb(stage, requests, payloads)
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
            rung=rung,
        )

    def finish_video(self, request: RenderRequest) -> tuple[EncodedVideo | None, StageReport]:
        """ENCODE_VIDEO of a clip that `run` decoded into a slot. Called beside `run`, in another thread."""
        assert self._videos is not None
        started = time.perf_counter()
        video, error = None, None
        try:
            video = self._videos.result(request.request_id)
        except Exception as caught:
            traceback.print_exc(file=sys.stderr)
            error = _describe(caught)
        return video, StageReport(seconds=time.perf_counter() - started, error=error)

    def state(self) -> WorkerState:
        """Safe to call from another thread while `run` works."""
        on_device = tuple(COMPONENT_OF_STAGE[stage] for stage in self._components.on_device())
        return replace(self._state, components=on_device, memory_bytes=memory_in_use(self._device))

    def _bring(self, stage: Stage) -> None:
        """Load what the stage needs before its time begins to count; where there is no room the ladder tries again."""
        try:
            self._ready(stage)
        except RuntimeError as error:
            if not is_shortage(error):
                raise

    def _ready(self, stage: Stage) -> Any:
        """The stage's object; while its weights come the state says so."""
        self._state = replace(self._state, is_loading=True)
        try:
            return self._components.ready(stage)
        finally:
            self._state = replace(self._state, is_loading=False)

    def _climb(
        self, stage: Stage, requests: Sequence[RenderRequest], payloads: Sequence[StageOutput | None]
    ) -> tuple[Sequence[StageOutput | None], tuple[str, ...], str | None]:
        """Outputs, digests of latents and the ladder's rung that it took; raises the last attempt's error."""
        shortage: RuntimeError | None = None
        for rung in rungs(stage, self._spec.worker.tiling, self._spec.exact, len(requests) > 1):
            try:
                if shortage is not None:
                    print(f"{', '.join(_names(requests))}: no memory for {stage}; again: {rung.name}", file=sys.stderr)
                    self._components.prepare(stage, rung)
                return *self._run_stage(stage, requests, payloads, rung), rung.name
            except RuntimeError as error:
                if not is_shortage(error):
                    raise
                # Without its frames, which hold the tensors that took the memory.
                shortage = error.with_traceback(None)
            finally:
                self._components.restore(stage, rung)
        assert shortage is not None
        raise shortage

    def _run_stage(
        self, stage: Stage, requests: Sequence[RenderRequest], payloads: Sequence[StageOutput | None], rung: Rung
    ) -> tuple[Sequence[StageOutput | None], tuple[str, ...]]:
        runs = self._ready(stage)
        if stage is Stage.ENCODE_TEXT:
            return runs.encode(requests), ()
        if stage is Stage.DENOISE:
            found: list[Latents] = runs.denoise(requests, payloads, self._on_step(requests))
            if not all(latents.latents.isfinite().all() for latents in found):
                raise FloatingPointError("the latents are not finite; model.precision=bfloat16 or float32 may help")
            return found, tuple(map(_sha256, found))
        (request,), (latents,) = requests, payloads
        assert isinstance(latents, Latents)
        # Again, of what arrived: a clip resumed at this stage has no other record of its latents.
        latents_sha256 = _sha256(latents)
        frames = runs.decode(request, latents, rung.tiling)
        return [self._decode(request, frames, latents_sha256)], (latents_sha256,)

    def _decode(self, request: RenderRequest, frames: Frames, latents_sha256: str) -> EncodedVideo | None:
        """The mp4, or None when it is made in a slot and `finish_video` will return it."""
        if self._videos is None:
            return self._encode(request, latents_sha256, frames)
        self._videos.feed(request.request_id, frames, partial(self._encode, request, latents_sha256))
        return None

    def _encode(self, request: RenderRequest, latents_sha256: str, frames: Frames) -> EncodedVideo:
        spec = self._spec
        key = render_key(
            request,
            spec.checkpoint_digest,
            spec.checkpoint.pipeline_class,
            spec.precision,
            spec.output,
            spec.storage,
            spec.worker.tiling.of(
                request.height, request.width, request.num_frames, spec.checkpoint.temporal_compression_ratio
            ),
            spec.worker.batch_size,
        )
        return encode_video(
            frames,
            height=request.height,
            width=request.width,
            num_frames=request.num_frames,
            frame_rate=request.frame_rate,
            output=spec.output,
            metadata={"title": request.prompt, "comment": json.dumps({"render_key": key, "request": asdict(request)})},
            facts={"render_key": key, "latents_sha256": latents_sha256},
        )

    def _on_step(self, requests: Sequence[RenderRequest]) -> Callable[[int], None]:
        worker_id, names, num_steps = self._spec.worker.worker_id, _names(requests), requests[0].num_inference_steps

        def on_step(step: int) -> None:
            self._state = WorkerState(worker_id, Stage.DENOISE, names, step, num_steps)

        return on_step

    def _set_threads(self) -> None:
        # Per calling thread in OpenMP, and an actor's calls need not run in the thread that made it.
        if self._spec.worker.threads is not None:
            torch.set_num_threads(self._spec.worker.threads)


def _names(requests: Sequence[RenderRequest]) -> tuple[str, ...]:
    return tuple(request.request_id for request in requests)


def _sha256(latents: Latents) -> str:
    return hashlib.sha256(latents.latents.contiguous().numpy()).hexdigest()


def _start_failure(spec: WorkerSpec, stage: Stage, error: Exception) -> str:
    """One line: libraries say what is wrong in their first."""
    first_line = _describe(error).splitlines()[0]
    return f"worker {spec.worker.worker_id}: {COMPONENT_OF_STAGE[stage]} of {spec.checkpoint.name}: {first_line}"


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip()
