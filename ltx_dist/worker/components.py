"""The components of a worker's stages: which of them are loaded, and which are on the device now."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.models.ltx_video.decode import VideoDecoder
from ltx_dist.models.ltx_video.denoise import Denoiser
from ltx_dist.models.ltx_video.encode_text import TextEncoder
from ltx_dist.pipeline.stages import STAGES, Stage
from ltx_dist.pipeline.storage import Storage
from ltx_dist.pipeline.worker import Worker
from ltx_dist.weights.loading import DTYPES
from ltx_dist.weights.residency import ResidentModule
from ltx_dist.weights.streaming import StreamedModule
from ltx_dist.worker.ladder import Rung

STAGE_CLASSES: dict[Stage, Callable[..., Any]] = {
    Stage.ENCODE_TEXT: TextEncoder,
    Stage.DENOISE: Denoiser,
    Stage.DECODE: VideoDecoder,
}


class Components:
    """Brings a stage's component to the device when it is asked for, and sends others away when they take turns.

    Where the host keeps no copy a component is read again for every turn, and dropped after it: then one of them is in
    memory at a time.
    """

    def __init__(
        self, worker: Worker, checkpoint: Checkpoint, precision: str, storage: Storage, device: torch.device
    ) -> None:
        self._worker = worker
        self._checkpoint = checkpoint
        self._dtype = DTYPES[precision]
        self._planned = self._storage = storage
        self._device = device
        self._stages: dict[Stage, Any] = {}
        self._movers: dict[Stage, ResidentModule | StreamedModule] = {}
        self._streamed = set(worker.streamed)
        self._takes_turns = worker.residency != "resident"

    def load(self, stage: Stage) -> None:
        """Read the weights, once. Raises what the libraries raise for files that are missing or wrong."""
        if stage in self._stages:
            return
        # Weights are ordinary tensors, whenever they are read: libraries change them on the way.
        with torch.inference_mode(False), torch.no_grad():
            made = STAGE_CLASSES[stage](self._checkpoint, self._dtype, self._device, self._storage)
            if stage in self._streamed:
                self._movers[stage] = StreamedModule(made.module, made.blocks, self._device)
            elif self._keeps_host_copy(stage):
                self._movers[stage] = ResidentModule(made.module, self._device)
            elif not self._is_quantised(stage):  # that one was made on the device; bitsandbytes' layers refuse to move
                made.module.to(self._device)
        self._stages[stage] = made

    @property
    def loaded_at_start(self) -> tuple[Stage, ...]:
        """All but what is read again for every turn."""
        return self._worker.stages if not self._takes_turns or self._worker.keeps_host_copy else ()

    def ready(self, stage: Stage) -> Any:
        """The stage's object, its weights on the device."""
        following = self._fits_beside(stage)
        if self._takes_turns:
            for other in [*self._stages]:
                if other not in (stage, following):
                    self._send_away(other)
        if self._device.type == "cuda" and stage not in self.on_device():
            torch.cuda.empty_cache()  # what left is given back, for pieces of other sizes
        self.load(stage)
        if stage in self._movers:
            self._movers[stage].upload()
        if following is not None:
            # The next turn's weights come while this stage computes (of a streamed one what is around its blocks, at
            # once). Without room after all, they come then.
            with suppress(torch.OutOfMemoryError):
                self._movers[following].prefetch()
        return self._stages[stage]

    def prepare(self, stage: Stage, rung: Rung) -> None:
        """Make room for an attempt after one that found none."""
        if rung.alone:
            for other in [*self._stages]:
                if other is not stage:
                    self._drop(other)
        if rung.streamed and stage not in self._streamed:
            # It changes no pixel, and what did not fit once will not again: it stays so.
            self._drop(stage)
            self._streamed.add(stage)
        if rung.float8:
            self._drop(stage)
            self._storage = replace(self._planned, transformer="float8")
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def restore(self, stage: Stage, rung: Rung) -> None:
        """After a clip that needed other weights: the next one gets those that were planned."""
        if rung.float8:
            self._drop(stage)
            self._storage = self._planned

    def on_device(self) -> tuple[Stage, ...]:
        movers = self._movers.copy()
        return tuple(stage for stage in (*self._stages,) if stage not in movers or movers[stage].is_resident)

    def _keeps_host_copy(self, stage: Stage) -> bool:
        """A quantised text encoder does not: its layers hold more than tensors that could be copied to and fro."""
        return self._takes_turns and self._worker.keeps_host_copy and not self._is_quantised(stage)

    def _is_quantised(self, stage: Stage) -> bool:
        return stage is Stage.ENCODE_TEXT and self._storage.text_encoder != "none"

    def _send_away(self, stage: Stage) -> None:
        if self._worker.keeps_host_copy and stage in self._movers:
            self._movers[stage].evict()
        else:
            self._drop(stage)

    def _drop(self, stage: Stage) -> None:
        self._stages.pop(stage, None)
        self._movers.pop(stage, None)
        gc.collect()

    def _fits_beside(self, stage: Stage) -> Stage | None:
        """The stage of the next turn, where its weights fit beside this one's and what it computes with."""
        worker = self._worker
        hosted = [other for other in (*STAGES, *STAGES) if other in worker.stages]
        following = hosted[hosted.index(stage) + 1]
        mover = self._movers.get(following)
        if worker.capacity is None or following is stage or mover is None:
            return None
        return following if mover.num_bytes <= worker.capacity - worker.peak_bytes else None
