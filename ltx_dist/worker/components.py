"""The components of a worker's stages: loads them, moves them to and from the device, and makes the operations."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter

import torch

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.models.family import Family, Operation
from ltx_dist.pipeline.recipe import StageSpec
from ltx_dist.pipeline.storage import Storage
from ltx_dist.pipeline.worker import Worker
from ltx_dist.weights.flat import move_flat
from ltx_dist.weights.host_memory import return_locked_memory
from ltx_dist.weights.loading import DTYPES
from ltx_dist.weights.residency import ResidentModule
from ltx_dist.weights.streaming import StreamedModule
from ltx_dist.worker.device import is_shortage
from ltx_dist.worker.oom_fallbacks import Fallback


class Components:
    """Brings a stage's components to the device before it runs, and evicts the others if components take turns.

    Stages that share a component share its module, so nothing is swapped between them. If the host keeps no copy, a
    component is read again for every turn and dropped afterwards; then only one turn's components are in memory.
    """

    def __init__(
        self,
        family: Family,
        worker: Worker,
        checkpoint: Checkpoint,
        precision: str,
        storage: Storage,
        device: torch.device,
    ) -> None:
        self._family = family
        self._traits = family.traits_in(storage)
        self._worker = worker
        self._checkpoint = checkpoint
        self._dtype = DTYPES[precision]
        self._planned = self._storage = storage
        self._device = device
        self._modules: dict[str, torch.nn.Module] = {}
        self._movers: dict[str, ResidentModule | StreamedModule] = {}
        self._operations: dict[tuple[str, tuple[str, ...]], Operation] = {}
        self._streamed = set(worker.streamed)
        self.takes_turns = worker.residency != "resident"
        self._prefetches = True
        self._notices: list[str] = []
        self._reported: set[str] = set()

    def load(self, name: str) -> None:
        """Read a component's weights, once. Raises what the libraries raise for files that are missing or wrong."""
        if name in self._modules:
            return
        # Not in inference mode, because libraries change the weights while loading them.
        with torch.inference_mode(False), torch.no_grad():
            module = self._family.load_component(name, self._checkpoint, self._dtype, self._storage, self._device)
            if name in self._streamed:
                blocks: Sequence[torch.nn.Module] = attrgetter(self._traits[name].blocks)(module)
                self._movers[name] = StreamedModule(module, blocks, self._device, self.report)
            elif self._keeps_host_copy(name):
                self._movers[name] = ResidentModule(module, self._device, self.report)
            elif not self._storage.is_quantised(name):  # made on the device; bitsandbytes' layers refuse to move
                move_flat(module, self._device)
        self._modules[name] = module

    def report(self, line: str) -> None:
        """Keep a line for users until `notices` takes it; equal lines are kept once."""
        if line not in self._reported:
            self._reported.add(line)
            self._notices.append(line)

    def notices(self) -> tuple[str, ...]:
        """The lines that were reported since the last call."""
        taken, self._notices = tuple(self._notices), []
        return taken

    @property
    def loaded_at_start(self) -> tuple[str, ...]:
        """Every component of the worker's stages, unless it is read again for every turn."""
        if self.takes_turns and not self._worker.keeps_host_copy:
            return ()
        stages = [self._family.recipe[stage] for stage in self._worker.stages]
        return tuple(dict.fromkeys(name for stage in stages for name in stage.components))

    def ready(self, stage: StageSpec) -> Operation:
        """The stage's operation, with its weights on the device."""
        following = self._fit_beside(stage)
        if self.takes_turns:
            for other in [*self._modules]:
                if other not in (*stage.components, *following):
                    self._send_away(other)
        if self._device.type == "cuda" and not set(stage.components) <= set(self.on_device()):
            torch.cuda.empty_cache()  # return the memory that evicted components left, in blocks of unsuitable sizes
        for name in stage.components:
            self.load(name)
            if name in self._movers:
                self._movers[name].upload()
        # The next turn's weights are copied while this stage computes; of a streamed component, everything but its
        # blocks. If they do not fit after all, they are copied when their turn comes.
        try:
            for name in following:
                self._movers[name].prefetch()
        except RuntimeError as error:
            if not is_shortage(error, self._device):
                raise
            self._prefetches = False
        return self._operation(stage)

    def take_turns(self, why: str) -> None:
        """From now on, keep only one stage's components on the device at a time, because what did not fit once will not
        fit later. The others stay in host memory and are copied back when their turn comes. why: for the user."""
        if self.takes_turns:
            return
        self.takes_turns = True
        self.report(f"{why}; from now on the components take turns on the device")
        for name, module in [*self._modules.items()]:
            if self._keeps_host_copy(name) and name not in self._movers:
                self._movers[name] = ResidentModule(module, self._device, self.report)

    def prepare(self, stage: StageSpec, fallback: Fallback) -> None:
        """Free memory for an attempt after one that ran out of it."""
        others = [name for name in self._modules if name not in stage.components]
        if fallback.alone:
            self.take_turns(f"{stage.name} needs the device to itself")
        if self.takes_turns:  # evict what was prefetched for the next turn, and prefetch no more
            self._prefetches = False
        for other in others if self.takes_turns else ():
            self._send_away(other)
        if fallback.streamed:
            # It stays streamed: that changes no pixel, and what did not fit once will not fit later.
            for name in stage.components:
                if self._traits[name].blocks and name not in self._streamed:
                    self._drop(name)
                    self._streamed.add(name)
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def store_for(self, stage: StageSpec, fallback: Fallback) -> None:
        """Store the stage's transformer as the attempt needs it, until another attempt needs it stored differently:
        each change reads all of its weights again, and clips that need the same storage are often neighbours."""
        storage = replace(self._planned, transformer="float8") if fallback.float8 else self._planned
        if storage == self._storage:
            return
        for name in stage.components:
            if self._traits[name].is_transformer:
                self._drop(name)
                self._storage = storage

    def on_device(self) -> tuple[str, ...]:
        """Names of the components whose weights are on the device; safe to call from another thread."""
        movers = self._movers.copy()
        return tuple(name for name in (*self._modules,) if name not in movers or movers[name].is_resident)

    def _operation(self, stage: StageSpec) -> Operation:
        key = stage.operation, stage.components
        if key not in self._operations:
            modules = {name: self._modules[name] for name in stage.components}
            self._operations[key] = self._family.operation(stage.operation)(
                modules, self._checkpoint, self._device, self._dtype
            )
        return self._operations[key]

    def _keeps_host_copy(self, name: str) -> bool:
        """Whether the host keeps the component's weights. Not if it is quantised: such layers hold more than tensors
        that could be copied back and forth."""
        return self.takes_turns and self._worker.keeps_host_copy and not self._storage.is_quantised(name)

    def _send_away(self, name: str) -> None:
        if self._worker.keeps_host_copy and name in self._movers:
            self._movers[name].evict()
        else:
            self._drop(name)

    def _drop(self, name: str) -> None:
        """Drop a component and every operation that holds it.

        It is evicted first, because a copy to the device may still be under way, whose memory must not be reused yet.
        """
        if (mover := self._movers.get(name)) is not None:
            mover.evict()
        self._operations = {key: made for key, made in self._operations.items() if name not in key[1]}
        self._modules.pop(name, None)
        self._movers.pop(name, None)
        gc.collect()
        return_locked_memory(self._device)

    def _fit_beside(self, stage: StageSpec) -> tuple[str, ...]:
        """The next turn's components if their weights fit beside this turn's weights and activations; else none."""
        worker, following = self._worker, self._next_turn(stage)
        if not self._prefetches or worker.capacity is None or not all(name in self._movers for name in following):
            return ()
        num_bytes = sum(self._movers[name].num_bytes for name in following)
        return following if num_bytes <= worker.capacity - worker.peak_bytes else ()

    def _next_turn(self, stage: StageSpec) -> tuple[str, ...]:
        """The components of the worker's next stage that this one does not use. Stages that need no others belong to
        this turn and are skipped."""
        hosted = [spec for spec in self._family.recipe if spec.name in self._worker.stages]
        position = hosted.index(stage)
        for other in (*hosted[position + 1 :], *hosted[:position]):
            if missing := tuple(name for name in other.components if name not in stage.components):
                return missing
        return ()
