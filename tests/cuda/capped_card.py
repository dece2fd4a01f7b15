"""A card of a given size, simulated on a CPU: the real worker renders full-size clips on it until memory runs out.

Tensors are torch's fake ones, which have a shape, a dtype and a device, but no data. Every storage on the device comes
from the simulated allocator, which raises torch.OutOfMemoryError where the card would. Batch loop, executor, worker,
residency, streaming, fallbacks, and the classes of diffusers and transformers are the real ones at their true size.
Replaced are torch.cuda's own functions, the files that weights are read from, whatever depends on values (checks for
finite numbers, digests, a search for a timestep), and x264. A clip of full size takes 10,000 operators. So the
allocations of a stage are recorded once for each way of running it, and then repeated; and the first blocks of a
network stand for all blocks, because their activations are alike. Weights are those of all blocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import repeat
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import transformers
from caching_allocator import Allocations, Block, CachingAllocator, convolution_workspace
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.hooks.layerwise_casting import LayerwiseCastingHook
from diffusers.models.modeling_utils import no_init_weights
from fake_cuda import CudaOps, cast_around_layers, first_step
from fake_streams import fake_streams
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.checkpoints.component_config import component_config
from ltx_dist.models import encode_video, frames
from ltx_dist.models.family import Family
from ltx_dist.models.ltx_video import denoising, encode_text
from ltx_dist.pipeline.payloads import DecodedClip, EncodedVideo, Latents
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import Storage
from ltx_dist.placement.fitting import CUDA_CONTEXT, DRIVER_RESERVE
from ltx_dist.worker import device as worker_device
from ltx_dist.worker.components import Components
from ltx_dist.worker.spec import WorkerSpec
from ltx_dist.worker.stage_worker import StageWorker

BLOCKS = 3
"""Number of blocks that are run: the first differs from the others (it computes T5's position bias), and the third
follows one alike."""

Event = tuple[int, int]
"""(bytes, number) if a block is taken; (GIVEN_BACK, number) if it is given back."""

GIVEN_BACK = -1

Ran = tuple[list[Event], Any]
"""What a stage took, in order, and its output."""

Runs = dict[tuple[Any, ...], Ran]
"""What stages took, by everything that it depends on."""


class RecordingAllocator(CachingAllocator):
    """recorded: if it is a list, what is taken and given back is added to it; earlier blocks have the number -1."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.recorded: list[Event] | None = None
        self._numbers: dict[int, int] = {}

    def record(self) -> list[Event]:
        self._numbers, self.recorded = {}, []
        return self.recorded

    def malloc(self, size: int) -> Block:
        block = super().malloc(size)
        if self.recorded is not None:
            self._numbers[id(block)] = len(self.recorded)
            self.recorded.append((size, len(self.recorded)))
        return block

    def free(self, block: Block) -> None:
        if self.recorded is not None:
            self.recorded.append((GIVEN_BACK, self._numbers.pop(id(block), -1)))
        super().free(block)

    def is_whole(self) -> bool:
        """Whether all that was taken was given back, and nothing else."""
        assert self.recorded is not None
        return not self._numbers and all(number >= 0 for _, number in self.recorded)

    def repeat(self, events: list[Event]) -> None:
        taken: dict[int, Block] = {}
        try:
            for size, number in events:
                if size == GIVEN_BACK:
                    self.free(taken.pop(number))
                else:
                    taken[number] = self.malloc(size)
        finally:
            for block in taken.values():
                self.free(block)


class CappedCard:
    """board_bytes: what `nvidia-smi` shows as the card's memory, of which the driver and CUDA's context take some.

    reads: how often the weights of each component were read, before the first shortage and after it. peak_reserved:
    the most that torch has held at once since the card was made. runs: recorded on this card or on another.
    """

    def __init__(self, board_bytes: int, monkeypatch: pytest.MonkeyPatch, runs: Runs | None = None) -> None:
        self.total = board_bytes - DRIVER_RESERVE
        self.allocator = RecordingAllocator(self.total - CUDA_CONTEXT)
        self.runs: Runs = {} if runs is None else runs
        self.reads: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        self.peak_reserved = 0
        self.used_before: set[Any] = set()
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._allocations = Allocations(self.allocator, "cuda", convolution_workspace)
        self._replace_cuda(monkeypatch)
        self._replace_what_reads_numbers(monkeypatch)
        monkeypatch.setattr(Family, "load_component", self._load)

    @contextmanager
    def used(self) -> Iterator[None]:
        """A context in which tensors are fake, and take memory of the card."""
        with ExitStack() as modes:
            modes.enter_context(MovedTensors())
            modes.enter_context(self._mode)
            modes.enter_context(self._allocations)
            try:
                yield
            finally:
                self.reset_peak()

    def reset_peak(self) -> None:
        self.peak_reserved = max(self.peak_reserved, self.allocator.peak_reserved)
        self.allocator.reset_peak()

    def worker(self, spec: WorkerSpec) -> StageWorker:
        return _CappedWorker(spec, self)

    def _free(self) -> int:
        return self.total - CUDA_CONTEXT - self.allocator.reserved

    def _keep_to(self, fraction: float, device: Any = None) -> None:
        self.allocator.capacity = min(int(fraction * self.total), self.total - CUDA_CONTEXT)

    def _replace_cuda(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fake_streams(monkeypatch)
        replaced: dict[str, Any] = {
            "is_available": lambda: True,
            "device_count": lambda: 1,
            "set_device": lambda device: None,
            "synchronize": lambda device=None: None,
            "mem_get_info": lambda device=None: (self._free(), self.total),
            "set_per_process_memory_fraction": self._keep_to,
            "empty_cache": self.allocator.empty_cache,
            "reset_peak_memory_stats": lambda device=None: self.reset_peak(),
            "max_memory_reserved": lambda device=None: self.allocator.peak_reserved,
            "memory_stats": lambda device=None: {"num_ooms": self.allocator.refusals},
            "get_device_name": lambda device=None: "a simulated card",
            "get_device_properties": lambda device=None: SimpleNamespace(
                pci_domain_id=0xFFFF,
                pci_bus_id=0,
                pci_device_id=0,  # no such device here
            ),
            "memory_allocated": lambda device=None: self.allocator.allocated,
        }
        for name, function in replaced.items():
            monkeypatch.setattr(torch.cuda, name, function)
        right = SimpleNamespace(is_wrong=False, warning=None)
        monkeypatch.setattr(worker_device, "check_convolution", lambda device: right)

    def _replace_what_reads_numbers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (denoising, encode_text, frames):
            monkeypatch.setattr(module, "check_finite", lambda *_: None)
        # Making this tokenizer with its full vocabulary takes minutes; only the number of tokens matters here.
        monkeypatch.setattr(encode_text, "load_tokenizer", lambda checkpoint: transformers.ByT5Tokenizer())
        monkeypatch.setattr(frames, "on_host", lambda group: np.empty(tuple(group.shape), np.uint8))
        monkeypatch.setattr(denoising.copy, "deepcopy", denoising.copy.copy)
        monkeypatch.setattr(Latents, "sha256", lambda latents: "")
        monkeypatch.setattr(encode_video.EncodeVideo, "run", _counted_frames)
        monkeypatch.setattr(FlowMatchEulerDiscreteScheduler, "_init_step_index", first_step)
        monkeypatch.setattr(LayerwiseCastingHook, "initialize_hook", _stored)
        cast_around_layers(monkeypatch, _cast)
        made = Components._operation

        def with_numbers(components: Components, stage: Any) -> Any:
            with _disable_current_modes():  # the schedule's values are read, and tokens are counted
                return made(components, stage)

        monkeypatch.setattr(Components, "_operation", with_numbers)

    def _load(
        self, name: str, checkpoint: Checkpoint, dtype: torch.dtype, storage: Storage, device: torch.device
    ) -> torch.nn.Module:
        """Replaces `Family.load_component`: returns a module of the real class and size, on the host."""
        self.reads[self.allocator.refusals > 0][name] += 1
        config: Any = component_config(checkpoint, name)
        usual = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        module: Any
        try:
            with no_init_weights():  # there are no values to draw
                if name == "text_encoder":
                    module = transformers.T5EncoderModel(transformers.T5Config(**config))
                elif name == "transformer":
                    module = diffusers.LTXVideoTransformer3DModel.from_config(config)
                else:
                    module = diffusers.AutoencoderKLLTXVideo.from_config(config)
                    module.encoder = None
        finally:
            torch.set_default_dtype(usual)
        for child in module.modules():
            _cast(child, dtype)
        if name == "transformer" and storage.transformer == "float8":
            module.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=dtype)
        return module.eval().requires_grad_(False)


class MovedTensors(CudaOps):
    """Fake tensors keep the device that they were made on; this moves them with their data."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.copy_ and args[0].device.type == "cuda":
            return torch.ops.aten.copy_.default(*args, **(kwargs or {}))
        result = super().__torch_function__(func, types, args, kwargs)
        if func == torch.Tensor.data.__set__:
            args[0].fake_device = args[1].device
            args[0].constant = None  # the number that it was made from, which would be used instead of its data
        return result


class _CappedWorker(StageWorker):
    def __init__(self, spec: WorkerSpec, card: CappedCard) -> None:
        self._card = card
        with card.used():
            super().__init__(spec)

    def _run_on_device(self, call: Any) -> Any:
        with self._card.used():
            return super()._run_on_device(call)

    def _ready(self, stage: Any) -> Any:
        operation = super()._ready(stage)
        way = self._spec.checkpoint.name, stage.name, self._components._storage
        family, modules = self._spec.family, self._components._modules
        blocks = [(modules[name], family.traits[name].blocks) for name in stage.components]
        return _Recorded(operation, self._card, way, [(module, path) for module, path in blocks if path])


class _Recorded:
    """An operation that repeats its recorded allocations, if it ran in the same way before."""

    def __init__(self, operation: Any, card: CappedCard, way: tuple[Any, ...], blocks: list[tuple[Any, str]]) -> None:
        self._operation, self._card, self._way, self._blocks = operation, card, way, blocks

    def run(self, requests: Any, inputs: Any, context: Any) -> Any:
        runs, allocator = self._card.runs, self._card.allocator
        # The first time, a text encoder also runs the negative prompt, whose embeddings it keeps.
        is_first = self._operation not in self._card.used_before
        self._card.used_before.add(self._operation)
        shape = [(one.height, one.width, one.num_frames) for one in requests]
        way = (*self._way, str(shape), context.tiling, is_first and self._way[1] == "encode_text")
        if way in runs:
            events, outputs = runs[way]
            allocator.repeat(events)
            return [_again(output, request) for output, request in zip(outputs, requests, strict=True)]
        events = allocator.record()
        try:
            with ExitStack() as shorter:
                for module, path in self._blocks:
                    shorter.enter_context(_first_blocks(module, path))
                outputs = self._operation.run(requests, inputs, context)
            outputs = [_taken(output) for output in outputs]
        finally:
            is_whole = allocator.is_whole()
            allocator.recorded = None
        if is_whole:
            runs[way] = events, outputs
        return [_again(output, request) for output, request in zip(outputs, requests, strict=True)]


@contextmanager
def _first_blocks(module: Any, path: str) -> Iterator[None]:
    *parents, name = path.split(".")
    owner = attrgetter(".".join(parents))(module) if parents else module
    blocks = getattr(owner, name)
    setattr(owner, name, blocks[:BLOCKS])
    try:
        yield
    finally:
        setattr(owner, name, blocks)


def _taken(output: Any) -> Any:
    """The same output. All frames of a clip are taken, because they are decoded only then."""
    if isinstance(output, DecodedClip):
        for _ in output.frames:
            pass
    return output


def _again(output: Any, request: RenderRequest) -> Any:
    if not isinstance(output, DecodedClip):
        return output
    frame = np.empty((request.height, request.width, 3), np.uint8)
    return replace(output, frames=repeat(frame, request.num_frames))


def _counted_frames(operation: Any, requests: Any, inputs: Any, context: Any) -> list[EncodedVideo]:
    """Replaces x264: takes every frame of a clip."""
    (source,) = context.stage.inputs
    for request, given in zip(requests, inputs, strict=True):
        assert sum(1 for _ in given[source].frames) == request.num_frames
    return [EncodedVideo(b"", one.num_frames, one.height, one.width, "", "") for one in requests]


def _stored(hook: Any, module: torch.nn.Module) -> torch.nn.Module:
    _cast(module, hook.storage_dtype)
    return module


def _cast(module: torch.nn.Module, dtype: torch.dtype) -> None:
    """Replaces `Module.to`, tensor by tensor: it would swap fake parameters, to which others hold references."""
    for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
        if tensor.is_floating_point() and tensor.dtype != dtype:
            tensor.data = tensor.data.to(dtype)
