"""The contract between the package and a model family, and the family of a checkpoint.

A family is plain data: a recipe, the components it loads, and the names of the classes that run its operations.
Importing this imports no torch; the classes are imported by the workers that run them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Protocol

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.estimates.costs import StageRate, Work
from ltx_dist.estimates.stage_memory import StageMemory, WeightBytes
from ltx_dist.inputs.preset import Preset
from ltx_dist.models.ltx2 import elsewhere as ltx2_elsewhere
from ltx_dist.models.ltx2 import estimates as ltx2_estimates
from ltx_dist.models.ltx2 import presets as ltx2_presets
from ltx_dist.models.ltx2 import recipes as ltx2
from ltx_dist.models.ltx_video import elsewhere as ltx_video_elsewhere
from ltx_dist.models.ltx_video import estimates as ltx_video_estimates
from ltx_dist.models.ltx_video import presets as ltx_video_presets
from ltx_dist.models.ltx_video import recipes as ltx_video
from ltx_dist.pipeline.recipe import Component, Recipe, StageSpec
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import UNTILED, DecodeTiling, Mp4Settings, Storage

if TYPE_CHECKING:
    import torch


Config = Mapping[str, Any]
Ratios = tuple[int, int]


@dataclass(frozen=True, slots=True)
class StageContext:
    """What an operation gets besides the requests and their inputs.

    stage: the row of the recipe, because one operation may run several stages.
    on_step: called after each denoising step with the number of steps done.
    tiling: the tiles to decode in. mp4: how to encode frames. render_key: returns the key of a request's clip.
    """

    stage: StageSpec
    on_step: Callable[[int], None] = lambda step: None
    tiling: DecodeTiling = UNTILED
    mp4: Mp4Settings = Mp4Settings()
    render_key: Callable[[RenderRequest], str] = lambda request: ""


class Operation(Protocol):
    """The code of a stage. It loads no weights, but reads tokenizers and noise schedulers from the checkpoint itself.

    components: the stage's loaded modules, by component name; they are on `device` whenever `run` is called.
    """

    def __init__(
        self, components: Mapping[str, Any], checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
    ) -> None: ...

    def run(
        self, requests: Sequence[RenderRequest], inputs: Sequence[Mapping[str, Any]], context: StageContext
    ) -> Sequence[Any]:
        """One output per request, on the CPU. `inputs[i]`: the outputs of earlier stages for request i, by stage."""
        ...


@dataclass(frozen=True)
class Family:
    """A model family as data.

    pipeline_classes: the diffusers pipelines that its checkpoints name. operations: `module:class` by operation.
    loader: `module:function` that loads a component; see `load_component`.
    presets: by version. preset_for: the preset that `model.version` names; raises ValueError if there is none.
        assumption: a sentence for people on what is assumed about the version if the checkpoint does not state it.
    assumed: given `model.checkpoint`, `version` and `upscaler`, what a checkpoint that is not on this machine may be,
        with its preset; nothing if no version of the family has that name.
    stage_rates: how fast each device stage runs. stage_work: operations of each device stage of a request, from the
        components' configs and the VAE's pixels and frames per latent. stage_memory: activations of each device stage,
        from the same, the precision and the storage. denoising: for each denoising pass of a request, its steps and
        how often a step runs the transformer on a clip. weight_bytes: bytes of each component on the device, from the
        configs and the number of its parameters.
    """

    name: str
    pipeline_classes: tuple[str, ...]
    recipe: Recipe
    components: tuple[Component, ...]
    operations: Mapping[str, str]
    loader: str
    presets: Mapping[str, Preset]
    preset_for: Callable[[str, Checkpoint], Preset]
    assumption: Callable[[Checkpoint], str | None]
    assumed: Callable[[str, str, str | None], Iterator[tuple[Checkpoint, Preset]]]
    stage_rates: Mapping[str, StageRate]
    stage_work: Callable[[Mapping[str, Config], Ratios, RenderRequest], Work]
    stage_memory: Callable[[Mapping[str, Config], Ratios, str, Storage], Mapping[str, StageMemory]]
    denoising: Callable[[RenderRequest], tuple[tuple[int, int], ...]]
    weight_bytes: Callable[[Mapping[str, Config], Mapping[str, int], str, Storage], Mapping[str, WeightBytes]]

    @cached_property
    def traits(self) -> Mapping[str, Component]:
        """The components by name."""
        return {component.name: component for component in self.components}

    def traits_in(self, storage: Storage) -> Mapping[str, Component]:
        """The components by name, as stored: a quantised one has no blocks to stream, because its layers hold more than
        tensors that could be copied back and forth; a transformer in float8 has no float8 to fall back to."""
        return {
            name: replace(
                component,
                blocks="" if storage.is_quantised(name) else component.blocks,
                is_transformer=component.is_transformer and storage.transformer != "float8",
            )
            for name, component in self.traits.items()
        }

    def operation(self, name: str) -> type[Operation]:
        return resolve_name(self.operations[name])

    def load_component(
        self, name: str, checkpoint: Checkpoint, dtype: torch.dtype, storage: Storage, device: torch.device
    ) -> torch.nn.Module:
        """The component's module, on the CPU unless `storage` asks for it to be quantised on the device while loading.

        Raises ValueError if weights and config do not match, and whatever the libraries raise for missing files.
        """
        return resolve_name(self.loader)(name, checkpoint, dtype, storage, device)


FAMILIES = (
    Family(
        name="ltx_video",
        pipeline_classes=("LTXPipeline", "LTXConditionPipeline"),
        recipe=ltx_video.RECIPE,
        components=ltx_video.COMPONENTS,
        operations=ltx_video.OPERATIONS,
        loader="ltx_dist.models.ltx_video.load:load_component",
        presets=ltx_video_presets.PRESETS,
        preset_for=ltx_video_presets.preset_for,
        assumption=ltx_video_presets.assumption,
        assumed=ltx_video_elsewhere.assumed,
        stage_rates=ltx_video_estimates.STAGE_RATES,
        stage_work=ltx_video_estimates.stage_work,
        stage_memory=ltx_video_estimates.stage_memory,
        denoising=ltx_video_estimates.denoising,
        weight_bytes=ltx_video_estimates.weight_bytes,
    ),
    Family(
        name="ltx2",
        pipeline_classes=("LTX2Pipeline", "LTX2ImageToVideoPipeline", "LTX2ConditionPipeline"),
        recipe=ltx2.RECIPE,
        components=ltx2.COMPONENTS,
        operations=ltx2.OPERATIONS,
        loader="ltx_dist.models.ltx2.load:load_component",
        presets=ltx2_presets.PRESETS,
        preset_for=ltx2_presets.preset_for,
        assumption=ltx2_presets.assumption,
        assumed=ltx2_elsewhere.assumed,
        stage_rates=ltx2_estimates.STAGE_RATES,
        stage_work=ltx2_estimates.stage_work,
        stage_memory=ltx2_estimates.stage_memory,
        denoising=ltx2_estimates.denoising,
        weight_bytes=ltx2_estimates.weight_bytes,
    ),
)


def family_of(checkpoint: Checkpoint) -> Family:
    """The family whose pipeline the checkpoint names. There is one: opening a checkpoint of no family is refused."""
    return next(family for family in FAMILIES if checkpoint.pipeline_class in family.pipeline_classes)
