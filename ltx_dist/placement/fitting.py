"""Chooses residency and decode tiling for a device and its stages, or reports what does not fit and what would."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Literal

from ltx_dist.estimates.stage_memory import StageMemory
from ltx_dist.pipeline.recipe import Recipe
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import UNTILED, DecodeTiling
from ltx_dist.pipeline.worker import Device, Residency
from ltx_dist.placement.tilings import TilingCosts

Wish = Literal["auto", "resident", "time_sliced", "streamed"]

CUDA_CONTEXT = 600_000_000
"""Bytes of a GPU that a process takes besides torch's allocator: CUDA context, kernels, handles of cuBLAS and cuDNN
(0.5 to 0.8 GB, published)."""

DRIVER_RESERVE = 400_000_000
"""Bytes that no process can use: memory.total of `nvidia-smi` is 0.3 to 0.6 GB more than is usable."""

DEVICE_RESERVE: Mapping[Device, int] = {"cuda": CUDA_CONTEXT + DRIVER_RESERVE, "cpu": 800_000_000}
"""Bytes in use before anything is loaded; on a CPU the process with torch, diffusers and transformers imported
(0.6 GB)."""

MAX_ELEMENTS = 2**31 - 1
"""Most elements of a tensor that cuDNN convolves; torch computes a larger one in 27 times the memory (Convolution.cpp,
`needs_64bit_indexing_no_split`)."""

MAX_TILING_COST = 1.6
"""Work of decoding in tiles, relative to one piece, up to which tiles are better than swapping weights for every
wave."""


@dataclass(frozen=True, slots=True)
class Models:
    """The sizes of a batch's models. weights: bytes on the device, by component.

    blocks: by component, how many equal blocks it can be streamed in, and block_bytes of one; absent for one that
        cannot. memory: by stage; a stage without needs nothing beside its weights. ratios: the VAE's pixels and frames
        per latent. cast: components that are stored in another dtype than they are loaded in. precisions: the dtypes
        that components compute in. cast_layer: by component, bytes of the largest layer as it computes; of those alone
        whose layers are stored in fewer bits. quantised: components of which the host keeps no copy, as they are made
        on the device.
    """

    recipe: Recipe
    weights: Mapping[str, int]
    block_bytes: Mapping[str, int] = field(default_factory=dict[str, int])
    blocks: Mapping[str, int] = field(default_factory=dict[str, int])
    memory: Mapping[str, StageMemory] = field(default_factory=dict[str, StageMemory])
    ratios: tuple[int, int] = (32, 8)
    cast: frozenset[str] = frozenset()
    precisions: frozenset[str] = frozenset()
    cast_layer: Mapping[str, int] = field(default_factory=dict[str, int])
    quantised: frozenset[str] = frozenset()

    def components(self, stages: Collection[str]) -> frozenset[str]:
        return frozenset(component for stage in stages for component in self.recipe[stage].components)

    def streamed_bytes(self, component: str) -> int:
        """Bytes on the device while a component is streamed: everything outside its blocks, and two blocks.

        Layers that are cast take up to a third block, because their stored weights go to new memory after each use.
        """
        there = 3 if component in self.cast_layer else 2
        return self.weights[component] - (self.blocks[component] - there) * self.block_bytes[component]


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How a device holds its stages. streamed: components whose blocks pass through it one by one.

    peak_bytes: peak on the device, including every margin and the reserve.
    """

    residency: Residency
    tiling: DecodeTiling
    peak_bytes: int
    streamed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BatchDemand:
    """The demands of a batch on its devices.

    shapes: one request of each size in it. tilings: those allowed, cheapest first. batch_size: how many requests may
    share a pass. together: how many requests of each shape can; 1 where it is not given. Working sets are cached, and
    copies with fewer tilings share the cache: a batch can have as many shapes as clips.
    """

    models: Models
    shapes: tuple[RenderRequest, ...] = ()
    tilings: tuple[DecodeTiling, ...] = (UNTILED,)
    batch_size: int = 1
    together: Mapping[RenderRequest, int] = field(default_factory=dict[RenderRequest, int])
    _largest: dict[str, Sequence[RenderRequest]] = field(
        default_factory=dict[str, "Sequence[RenderRequest]"], repr=False, compare=False
    )
    _known: dict[tuple[str, DecodeTiling], int] = field(
        default_factory=dict[tuple[str, DecodeTiling], int], repr=False, compare=False
    )

    @property
    def stages(self) -> tuple[str, ...]:
        """The device stages that any of the batch's requests runs; all of the recipe without requests."""
        recipe = self.models.recipe
        run = {stage for shape in self.shapes for stage in recipe.of(shape)} if self.shapes else set(recipe.on_device)
        return tuple(stage for stage in recipe.on_device if stage in run)

    def in_tiles(self, tiling: DecodeTiling) -> BatchDemand:
        """The demand with this one tiling."""
        return replace(self, tilings=(tiling,))

    def weights(self, stages: Collection[str]) -> int:
        """Bytes of the weights of these stages; what several of them share counts once."""
        return sum(self.models.weights[component] for component in self.models.components(stages))

    def host_copies(self, stages: Collection[str]) -> int:
        """Bytes of these stages' weights that the host can keep when they leave the device."""
        return sum(self.models.weights[name] for name in self.models.components(stages) - self.models.quantised)

    def working_set(self, stage: str, tiling: DecodeTiling) -> int:
        """Bytes for the largest pass, without the device margin; 0 if there are no shapes."""
        memory = self.models.memory.get(stage)
        if memory is None:
            return 0
        key = stage, tiling if memory.is_tiled else UNTILED
        if key not in self._known:
            self._known[key] = self._of_largest(stage, memory, key[1])
        return self._known[key]

    def _of_largest(self, stage: str, memory: StageMemory, tiling: DecodeTiling) -> int:
        if stage not in self._largest:
            self._largest[stage] = memory.largest(self.shapes)
        shares = self.models.recipe[stage].shares_pass
        together: Mapping[RenderRequest, int] = self.together if shares else dict[RenderRequest, int]()
        sizes = (memory.working_set(shape, tiling, together.get(shape, 1)) for shape in self._largest[stage])
        return max(sizes, default=0)

    def plan_memory(
        self, device: Device, capacity: int | None, stages: Sequence[str], residency: Wish = "auto"
    ) -> MemoryPlan:
        """The first plan that fits in `capacity` bytes, in order of cost: resident, decoding in tiles, taking turns,
        streamed.

        If the capacity is unknown, the requested residency is used; for `auto`, resident on a CPU and time-sliced on a
        GPU. If `streamed` is requested, every component that can be streamed is; else only those that do not fit whole.
        Raises ValueError saying what does not fit and what would.
        """
        allowed = _allowed(device, capacity, residency)
        whole = capacity if residency != "streamed" else 0
        too_large: list[MemoryPlan] = []
        for plan in self._plans(device, stages, whole):
            if plan.residency not in allowed:
                continue
            if capacity is None or plan.peak_bytes <= capacity:
                return plan
            too_large.append(plan)
        assert capacity is not None, "every plan fits in a capacity that nobody knows"
        least = min(too_large, key=lambda plan: plan.peak_bytes)
        raise ValueError(self._does_not_fit(device, capacity, stages, least, residency))

    def _plans(self, device: Device, stages: Sequence[str], whole: int | None) -> Iterator[MemoryPlan]:
        """All plans in order of cost. `whole`: the bytes that a stage must fit in to not be streamed."""
        cost, tilings = TilingCosts(self.shapes, self.models.ratios), self._indexable(device, stages)
        reserve = DEVICE_RESERVE[device]
        for tiling in takewhile(lambda one: one == tilings[0] or cost(one) <= MAX_TILING_COST, tilings):
            largest = max(self._with_margin(device, stage, tiling) for stage in stages)
            yield MemoryPlan("resident", tiling, reserve + self.weights(stages) + largest)
        for tiling in tilings:
            needs = [self.weights([stage]) + self._with_margin(device, stage, tiling) for stage in stages]
            yield MemoryPlan("time_sliced", tiling, reserve + max(needs))
        for tiling in tilings:
            yield self._streamed(device, stages, tiling, None if whole is None else whole - reserve)

    def _indexable(self, device: Device, stages: Sequence[str]) -> Sequence[DecodeTiling]:
        """The tilings whose tensors are small enough for the device's kernels; the last one if none are."""
        if device == "cpu":
            return self.tilings
        tilings = self.tilings
        for memory in filter(None, map(self.models.memory.get, stages)):
            if (count := memory.elements) is not None:
                shapes = memory.largest(self.shapes)
                fine = [one for one in tilings if all(count(shape, one) <= MAX_ELEMENTS for shape in shapes)]
                tilings = fine or tilings[-1:]
        return tilings

    def _streamed(self, device: Device, stages: Sequence[str], tiling: DecodeTiling, room: int | None) -> MemoryPlan:
        """Stages that need more than `room` stream what they can; the others keep their components whole."""
        needs: list[int] = []
        streamed: set[str] = set()
        for stage in stages:
            components, working = self.models.components([stage]), self._with_margin(device, stage, tiling)
            need = self.weights([stage]) + working
            if room is not None and need > room:
                blocks = {component for component in components if component in self.models.blocks}
                streamed |= blocks
                need = working + self._bytes(components, blocks)
            needs.append(need)
        return MemoryPlan("streamed", tiling, DEVICE_RESERVE[device] + max(needs), tuple(sorted(streamed)))

    def _with_margin(self, device: Device, stage: str, tiling: DecodeTiling) -> int:
        """Bytes beside the weights: a cast copy of a layer, and activations with the device's margin."""
        models = self.models
        cast = max((models.cast_layer.get(component, 0) for component in models.components([stage])), default=0)
        memory = models.memory.get(stage)
        return cast + (int(self.working_set(stage, tiling) * memory.margin[device]) if memory else 0)

    def _bytes(self, components: Collection[str], streamed: Collection[str]) -> int:
        models = self.models
        return sum(models.streamed_bytes(c) if c in streamed else models.weights[c] for c in components)

    def _does_not_fit(
        self, device: Device, capacity: int, stages: Sequence[str], least: MemoryPlan, residency: str
    ) -> str:
        """One line with the largest part and its remedies."""
        if residency != "auto":
            return (
                f"placement.residency: {residency} needs at least {gigabytes(least.peak_bytes)} of the device's "
                f"{gigabytes(capacity)}; use auto"
            )
        sizes = {
            stage: self._with_margin(device, stage, least.tiling)
            + self._bytes(self.models.components([stage]), least.streamed)
            for stage in stages
        }
        stage = max(sizes, key=lambda stage: sizes[stage])
        memory = self.models.memory.get(stage)
        remedy = memory.remedy if memory else "use a device with more memory"
        if self.models.recipe[stage].shares_pass and max(self.together.values(), default=1) > 1:
            remedy = "lower denoise.batch_size"
        return (
            f"placement.memory_gb: {least.residency} needs at least {gigabytes(least.peak_bytes)} of the device's "
            f"{gigabytes(capacity)}, most of it {gigabytes(sizes[stage])} for {stage}; {remedy}"
        )


def _allowed(device: Device, capacity: int | None, residency: Wish) -> tuple[str, ...]:
    if residency != "auto":
        return (residency,)
    if capacity is None:
        return ("resident",) if device == "cpu" else ("time_sliced",)
    # On a CPU, streamed weights come from the same memory: nothing is gained.
    return ("resident", "time_sliced") if device == "cpu" else ("resident", "time_sliced", "streamed")


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
