"""One device's bytes and the stages it hosts -> residency and decode tiling, or what does not fit and what would."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from math import ceil
from typing import Any, Literal

from ltx_dist.estimates import working_sets
from ltx_dist.estimates.parameters import text_encoder_block_parameters, transformer_block_parameters
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.stages import COMPONENT_OF_STAGE, Stage
from ltx_dist.pipeline.storage import UNTILED, DecodeTiling
from ltx_dist.pipeline.worker import Device, Residency
from ltx_dist.placement.tilings import TilingCosts

Wish = Literal["auto", "resident", "time_sliced", "streamed"]
Config = Mapping[str, Any]

ALONE: Mapping[RenderRequest, int] = {}
"""Where every request has its passes for itself."""

DEVICE_RESERVE: Mapping[Device, int] = {"cuda": 1_000_000_000, "cpu": 800_000_000}
"""Bytes that are gone before anything of ours: the CUDA context, cuBLAS and cuDNN (0.5 to 0.8 GB); on a CPU the
process with torch, diffusers and transformers imported (0.6 GB)."""

MARGIN: Mapping[Device, Mapping[Stage, float]] = {
    "cuda": {Stage.ENCODE_TEXT: 1.1, Stage.DENOISE: 1.1, Stage.DECODE: 3.5},
    "cpu": {Stage.ENCODE_TEXT: 1.1, Stage.DENOISE: 1.1, Stage.DECODE: 2.0},
}
"""What a device holds over the counted activations: the caching allocator's blocks, and workspaces of kernels.

Decoding, CUDA: 100 bytes a pixel-frame are counted in 16 bits, and three peaks that others published agree at 346 to
358 (github.com/Lightricks/LTX-Video/issues/36 and /pull/23; cornball-ai/diffuseR/pull/38): cuDNN's convolutions work in
copies of their own. Denoising, CUDA: diffusers' benchmark of 13B at 7,392 tokens allocates 25.2 GiB, which is its
weights and the counted 0.97 GB, so 1.1 is for fragments. CPU: oneDNN reorders a convolution's input and output.
"""

WAVE_OVERHEAD = 0.05
"""Swaps may take this share of the time of a wave."""

MAX_WAVE = 100
"""Conditioning and latents of a waiting clip are some 4 MB on the host; beyond this a first clip takes long to come."""

MAX_TILING_COST = 1.6
"""Decode work over that of one piece up to which tiles are better than swapping weights for every wave."""


@dataclass(frozen=True, slots=True)
class Models:
    """What is known of a batch's models, by component: bytes on the device, of one streamed block, configs.

    blocks: how many equal blocks a component can be streamed in; absent for one that cannot. element_bytes: of the
    activations, vae_element_bytes: of the VAE's. ratios: the VAE's pixels and frames a latent.
    """

    weights: Mapping[str, int]
    block_bytes: Mapping[str, int] = field(default_factory=dict[str, int])
    blocks: Mapping[str, int] = field(default_factory=dict[str, int])
    configs: Mapping[str, Config] = field(default_factory=dict[str, Config])
    element_bytes: int = 2
    ratios: tuple[int, int] = (32, 8)
    vae_element_bytes: int = 2

    def streamed_bytes(self, component: str) -> int:
        """On the device while a component is streamed: what is not in its blocks, and two of those."""
        block = self.block_bytes[component]
        return self.weights[component] - (self.blocks[component] - 2) * block

    def working_set(
        self,
        stage: Stage,
        shapes: Sequence[RenderRequest],
        tiling: DecodeTiling,
        together: Mapping[RenderRequest, int] = ALONE,
    ) -> int:
        """Of the largest of these requests, as counted, without a device's margin; of none, nothing.

        together: how many like each may share a pass. Decoded they are one by one.
        """
        if not shapes:
            return 0
        config, element = self.configs[COMPONENT_OF_STAGE[stage]], self.element_bytes
        if stage is Stage.ENCODE_TEXT:
            return max(
                working_sets.encode_text_bytes(config, r.max_sequence_length, element, together.get(r, 1))
                for r in shapes
            )
        if stage is Stage.DENOISE:
            return max(working_sets.denoise_bytes(config, r, self.ratios, element, together.get(r, 1)) for r in shapes)
        return max(working_sets.decode_bytes(config, r, self.vae_element_bytes, tiling) for r in shapes)


@dataclass(frozen=True, slots=True)
class Fit:
    """How a device holds its stages. `streamed`: those whose blocks pass through it one by one.

    peak_bytes: the most that is on the device at a time, with every margin; the reserve counts.
    """

    residency: Residency
    tiling: DecodeTiling
    peak_bytes: int
    streamed: tuple[Stage, ...] = ()


@dataclass(frozen=True, slots=True)
class Demand:
    """What a batch asks of its devices. `shapes`: a request of each size in it; `tilings`: allowed, cheapest first.

    batch_size: how many may share a pass; together: how many of each of the shapes can come to. Working sets are kept
    once known, also by the same demand with fewer tilings: a batch can have as many shapes as clips.
    """

    models: Models
    shapes: tuple[RenderRequest, ...] = ()
    tilings: tuple[DecodeTiling, ...] = (UNTILED,)
    batch_size: int = 1
    together: Mapping[RenderRequest, int] = field(default_factory=dict[RenderRequest, int])
    _deciding: dict[Stage, Sequence[RenderRequest]] = field(
        default_factory=dict[Stage, Sequence[RenderRequest]], repr=False, compare=False
    )
    _known: dict[tuple[Stage, DecodeTiling], int] = field(
        default_factory=dict[tuple[Stage, DecodeTiling], int], repr=False, compare=False
    )

    def fit(self, device: Device, capacity: int | None, stages: Sequence[Stage], residency: Wish = "auto") -> Fit:
        return fit(device, capacity, stages, self, residency)

    def working_set(self, stage: Stage, tiling: DecodeTiling) -> int:
        """Of its largest pass, without a device's margin."""
        if stage is not Stage.DECODE:
            tiling = UNTILED
        if stage not in self._deciding:
            self._deciding[stage] = (
                self.shapes if stage is not Stage.DECODE else working_sets.largest_to_decode(self.shapes)
            )
        if (stage, tiling) not in self._known:
            self._known[stage, tiling] = self.models.working_set(stage, self._deciding[stage], tiling, self.together)
        return self._known[stage, tiling]

    def in_tiles(self, tiling: DecodeTiling) -> Demand:
        """The same with this one tiling."""
        return replace(self, tilings=(tiling,))

    def weights(self, stages: Iterable[Stage]) -> int:
        return sum(self.models.weights[COMPONENT_OF_STAGE[stage]] for stage in stages)


def fit(
    device: Device,
    capacity: int | None,
    stages: Sequence[Stage],
    demand: Demand,
    residency: Wish = "auto",
) -> Fit:
    """The first that fits in `capacity` bytes, in order of cost: resident, decoding in tiles, taking turns, streamed.

    Where nobody knows the capacity, what was asked for is taken, or turns.
    Asked for by name, `streamed` streams every stage that can be; else those alone that do not fit whole.
    Raises ValueError saying what does not fit and what would.
    """
    # Weights that pass through a CPU come from its own memory: nothing is won.
    allowed: tuple[str, ...] = (
        ("resident", "time_sliced") if device == "cpu" else ("resident", "time_sliced", "streamed")
    )
    if residency != "auto":
        allowed = (residency,)
    elif capacity is None:
        allowed = ("resident",) if device == "cpu" else ("time_sliced",)
    whole = capacity if residency != "streamed" else 0
    ways: list[Fit] = []
    for way in _ways(device, stages, demand, whole):
        if way.residency not in allowed:
            continue
        if capacity is None or way.peak_bytes <= capacity:
            return way
        ways.append(way)
    assert capacity is not None, "every way fits in a capacity that nobody knows"
    least = min(ways, key=lambda way: way.peak_bytes)
    raise ValueError(_does_not_fit(device, capacity, stages, demand, least, residency))


def _ways(
    device: Device,
    stages: Sequence[Stage],
    demand: Demand,
    whole: int | None,
) -> Iterable[Fit]:
    """Every way in order of cost. `whole`: what a stage must fit in not to be streamed."""
    models, tilings = demand.models, demand.tilings
    cost = TilingCosts(demand.shapes, models.ratios)
    cheap = takewhile(lambda tiling: tiling == tilings[0] or cost(tiling) <= MAX_TILING_COST, tilings)
    weights = {stage: models.weights[COMPONENT_OF_STAGE[stage]] for stage in stages}

    def working(stage: Stage, tiling: DecodeTiling) -> int:
        return int(demand.working_set(stage, tiling) * MARGIN[device][stage])

    reserve = DEVICE_RESERVE[device]
    for tiling in cheap:
        largest = max(working(stage, tiling) for stage in stages)
        yield Fit("resident", tiling, reserve + sum(weights.values()) + largest)
    for tiling in tilings:
        yield Fit("time_sliced", tiling, reserve + max(weights[stage] + working(stage, tiling) for stage in stages))
    for tiling in tilings:
        needs: list[int] = []
        streamed: list[Stage] = []
        for stage in stages:
            need, component = weights[stage] + working(stage, tiling), COMPONENT_OF_STAGE[stage]
            if component in models.blocks and whole is not None and reserve + need > whole:
                streamed.append(stage)
                need = models.streamed_bytes(component) + working(stage, tiling)
            needs.append(need)
        yield Fit("streamed", tiling, reserve + max(needs), tuple(streamed))


def _does_not_fit(
    device: Device,
    capacity: int,
    stages: Sequence[Stage],
    demand: Demand,
    least: Fit,
    residency: str,
) -> str:
    """One line: the largest part, and the remedies that there are for it."""
    margins, models = MARGIN[device], demand.models
    sizes = {
        stage: int(demand.working_set(stage, least.tiling) * margins[stage])
        + (
            models.streamed_bytes(COMPONENT_OF_STAGE[stage])
            if stage in least.streamed
            else models.weights[COMPONENT_OF_STAGE[stage]]
        )
        for stage in stages
    }
    stage = max(sizes, key=lambda stage: sizes[stage])
    remedies = {
        Stage.ENCODE_TEXT: "set model.text_encoder_quantization=int8 or int4",
        Stage.DENOISE: "set model.transformer_storage=float8, or render fewer frames or pixels",
        Stage.DECODE: "leave decode.tile_size and decode.tile_frames at auto, or else render fewer pixels",
    }
    if max(demand.together.values(), default=1) > 1:
        remedies |= dict.fromkeys((Stage.ENCODE_TEXT, Stage.DENOISE), "lower denoise.batch_size")
    if residency != "auto":
        return (
            f"placement.residency: {residency} needs at least {gigabytes(least.peak_bytes)} of the device's "
            f"{gigabytes(capacity)}; use auto"
        )
    return (
        f"placement.memory_gb: {least.residency} needs at least {gigabytes(least.peak_bytes)} of the device's "
        f"{gigabytes(capacity)}, most of it {gigabytes(sizes[stage])} for {stage}; {remedies[stage]}"
    )


def wave_size(swap_seconds: float, clip_seconds: float) -> int:
    """K: how many clips a stage takes in a row so that swaps take `WAVE_OVERHEAD` of the time: ceil(S / (0.05 T))."""
    assert clip_seconds > 0
    return min(MAX_WAVE, max(1, ceil(swap_seconds / (WAVE_OVERHEAD * clip_seconds) - 1e-9)))


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def blocks_of(configs: Mapping[str, Config]) -> tuple[dict[str, int], dict[str, int]]:
    """Parameters of a block, and how many there are, of the components that can be streamed."""
    parameters = {
        "text_encoder": text_encoder_block_parameters(configs["text_encoder"]),
        "transformer": transformer_block_parameters(configs["transformer"]),
    }
    numbers: dict[str, int] = {name: configs[name]["num_layers"] for name in parameters}
    return parameters, numbers
