"""A batch of requests with its checkpoint and settings, checked without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from ltx_dist.checkpoints.checkpoint import Checkpoint, Fetch, open_checkpoint
from ltx_dist.checkpoints.component_config import noise_scheduler_config
from ltx_dist.checkpoints.hub import fetch_snapshot
from ltx_dist.checkpoints.lora_files import with_loras
from ltx_dist.estimates.costs import PredictedCosts
from ltx_dist.estimates.parameters import component_bytes
from ltx_dist.estimates.working_sets import pads_by_reflection
from ltx_dist.inputs.config import OF_THE_FOLDER, ModelConfig, RenderConfig
from ltx_dist.inputs.cut_off import cut_off, cut_off_warning
from ltx_dist.inputs.names import renamed
from ltx_dist.inputs.preset import TAKES_TIMESTEPS, Preset
from ltx_dist.inputs.prompt_files import Prompts
from ltx_dist.inputs.prompt_row import max_tokens
from ltx_dist.inputs.prompts import read_prompts
from ltx_dist.models.family import Family, family_of
from ltx_dist.pipeline.keys import Making
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import Mp4Settings, Storage
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.placement.fitting import BatchDemand, Models
from ltx_dist.placement.inventory import Inventory
from ltx_dist.placement.placement import Wishes
from ltx_dist.placement.tilings import candidate_tilings, check_strides
from ltx_dist.planning.planner import Forecast, forecasts
from ltx_dist.planning.simulator import Todo
from ltx_dist.run.cost_store import component_configs, predicted_costs
from ltx_dist.run.precision import chosen_precision, unused_gpus, usable
from ltx_dist.scheduling.batching import most_together


@dataclass(frozen=True)
class Batch:
    """Requests, and the checkpoint and settings they are for.

    decoded_again: if kept latents are decoded again, the names of all clips of the earlier run, in order. Those that
    are not among `requests` have no latents left, and stay as they are. warnings: lines about settings that may not be
    meant. notes: further content of sidecars, by clip name: `meta` and `variation`.
    """

    config: RenderConfig
    checkpoint: Checkpoint
    preset: Preset
    requests: tuple[RenderRequest, ...]
    decoded_again: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all clips, in order."""
        return self.decoded_again or tuple(request.request_id for request in self.requests)

    @property
    def mp4_settings(self) -> Mp4Settings:
        output = self.config.output
        return Mp4Settings(
            **output.model_dump(exclude={"also", *OF_THE_FOLDER}), also=tuple(sorted(dict.fromkeys(output.also)))
        )

    @property
    def wishes(self) -> Wishes:
        return Wishes(**self.config.placement.model_dump())

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names of clips that this run cannot render."""
        given = {request.request_id for request in self.requests}
        return tuple(name for name in self.names if name not in given)

    @property
    def family(self) -> Family:
        return family_of(self.checkpoint)

    @cached_property
    def todo(self) -> dict[str, tuple[str, ...]]:
        """The stages of each request, assuming that none has run yet."""
        return {request.request_id: self.family.recipe.of(request) for request in self.requests}

    def placement(self, inventory: Inventory, todo: Todo | None = None) -> Placement:
        """The best placement. Raises ValueError if the devices cannot hold the requested layout.

        todo: the stages that each request still has to run; all of its stages if not given.
        """
        return self._whole_on(inventory) if todo is None else self.forecasts(inventory, todo)[0].placement

    @cached_property
    def _whole_on(self) -> Callable[[Inventory], Placement]:
        """The placement of the whole batch, computed once per inventory: simulating 10,000 clips takes a second."""
        return cache(lambda inventory: self.forecasts(inventory)[0].placement)

    def forecasts(self, inventory: Inventory, todo: Todo | None = None) -> list[Forecast]:
        """Forecasts of the requested layouts, best first. Raises ValueError likewise.

        todo: the stages that each request still has to run; all of its stages if not given.
        """
        inventory, precision = usable(self.config, inventory), self.precision(inventory)
        left = self.todo if todo is None else todo
        found = forecasts(self.wishes, inventory, self.demand(precision), left, self.costs(precision))
        if any(worker.device == "cpu" and self._is_in_int4(worker) for worker in found[0].placement.workers):
            raise ValueError(
                "model.text_encoder_quantization: int4 saves nothing on a CPU, where torchao stores 4 bits in 8; "
                "use int8"
            )
        return found

    def costs(self, precision: str) -> PredictedCosts:
        """The predicted costs of all requests."""
        return predicted_costs(self.family, self.checkpoint, precision, self.requests, self.storage(precision))

    def precision(self, inventory: Inventory) -> str:
        """The dtype of the weights on the device, by name."""
        return chosen_precision(self.config, inventory)

    def warned_of(self, inventory: Inventory) -> Batch:
        """The same batch, with a warning that names the GPUs it does not use, if there are any."""
        line = unused_gpus(self.config, inventory)
        return self if line is None else replace(self, warnings=(*self.warnings, line))

    def storage(self, precision: str) -> Storage:
        """How components are stored. The VAE's precision is only set if it differs from the model's, because an equal
        one gives the same clips as none.

        `auto` with float16 is float32: nobody has shown that the VAE's values fit into float16. (LTX-2's VAE always
        has the model's precision.)
        """
        model = self.config.model
        wished: Any = model.vae_precision
        if wished == "auto":
            wished = "float32" if precision == "float16" and not self.checkpoint.generation else precision
        vae = "same" if wished == precision else wished
        return Storage(model.transformer_storage, model.text_encoder_quantization, vae)

    def making(self, digest: Mapping[str, str], precision: str) -> Making:
        """The part of the keys that all requests share."""
        checkpoint, family = self.checkpoint, self.family
        return Making(
            family.recipe,
            digest,
            checkpoint.pipeline_class,
            (checkpoint.spatial_compression_ratio, checkpoint.temporal_compression_ratio),
            precision,
            self.storage(precision),
            self.mp4_settings,
            self.config.denoise.batch_size,
            {component.name: component.part for component in family.components if component.part},
        )

    def demand(self, precision: str) -> BatchDemand:
        """The memory and work that the batch demands of devices. Raises ValueError for an invalid tile."""
        family, checkpoint, storage = self.family, self.checkpoint, self.storage(precision)
        configs = component_configs(family, checkpoint)
        weights = family.weight_bytes(configs, checkpoint.num_loaded(), precision, storage)
        streamed = {name: found for name, found in weights.items() if found.num_blocks}
        ratios = checkpoint.spatial_compression_ratio, checkpoint.temporal_compression_ratio
        shapes = {_shape(request): request for request in self.requests}
        if isinstance(self.config.decode.tile_size, int) and pads_by_reflection(configs["vae"]):
            check_strides(self.config.decode.tile_size, shapes.values(), ratios[0])
        together = most_together(family.recipe, self.requests, self.config.denoise.batch_size, _shape)
        decode = self.config.decode
        return BatchDemand(
            Models(
                family.recipe,
                {name: found.total for name, found in weights.items()},
                {name: found.block for name, found in streamed.items()},
                {name: found.num_blocks for name, found in streamed.items()},
                family.stage_memory(configs, ratios, precision, storage),
                ratios,
                frozenset(name for name in weights if _is_cast(checkpoint, name, precision)),
                frozenset({precision, storage.vae_precision(precision)}),
                {name: found.cast_layer for name, found in weights.items() if found.cast_layer},
                frozenset(name for name in weights if storage.is_quantised(name)),
            ),
            tuple(shapes.values()),
            tuple(candidate_tilings(decode.tile_size, decode.tile_frames, tuple(shapes.values()), ratios)),
            self.config.denoise.batch_size,
            {request: together[shape] for shape, request in shapes.items()},
        )

    def _is_in_int4(self, worker: Worker) -> bool:
        recipe = self.family.recipe
        components = {component for stage in worker.stages for component in recipe[stage].components}
        return "text_encoder" in components and self.config.model.text_encoder_quantization == "int4"


def open_batch(
    prompts: Prompts, config: RenderConfig, fetch: Fetch = fetch_snapshot, images: Path | None = None
) -> Batch:
    """Read and check everything that a run needs. Raises ValueError with all errors.

    prompts: as in `read_prompts`. fetch: `fetch_headers` for a batch that is only planned, so that a model on the hub
    is not downloaded. images: a folder of first frames, each for the clip of the same name.
    """
    checkpoint = open_checkpoint(config.model.checkpoint, config.model.text_encoder, config.model.upscaler, fetch)
    if checkpoint.generation:
        _refuse_what_ltx2_lacks(config.model)
    if config.denoise.batch_size > 1 and noise_scheduler_config(checkpoint).get("stochastic_sampling"):
        raise ValueError(
            "denoise.batch_size: this checkpoint's noise scheduler draws noise in every step (stochastic_sampling), "
            "which would depend on the other clips of a pass; use 1"
        )
    if checkpoint.pipeline_class == TAKES_TIMESTEPS and noise_scheduler_config(checkpoint).get("stochastic_sampling"):
        # diffusers 0.42 passes the prediction with the wrong sign for this kind of step.
        raise ValueError(
            f"model.checkpoint: {checkpoint.name}: with stochastic_sampling LTXConditionPipeline renders noise; set it "
            "to false in scheduler/scheduler_config.json, or name LTXPipeline in model_index.json"
        )
    preset = family_of(checkpoint).preset_for(config.model.version, checkpoint)
    warnings: list[str] = []
    notes: dict[str, dict[str, Any]] = {}
    requests = read_prompts(
        prompts, config.defaults, preset, checkpoint, warnings, config.model.loras, config.prompts, notes, images
    )
    if config.output.name is not None:
        requests, notes = renamed(requests, notes, config.output.name)
    if too_long := cut_off_warning(cut_off(requests, checkpoint), max_tokens(checkpoint)):
        warnings.append(too_long)
    checkpoint = with_loras(checkpoint, requests)
    return Batch(config, checkpoint, preset, tuple(requests), warnings=tuple(warnings), notes=notes)


def _refuse_what_ltx2_lacks(model: ModelConfig) -> None:
    """Raise ValueError for a model setting that LTX-2's loader would ignore."""
    if model.vae_precision != "auto":
        raise ValueError(
            "model.vae_precision: the VAE of LTX-2 has the model's precision, and the sound float32; leave it out"
        )


def _is_cast(checkpoint: Checkpoint, component: str, precision: str) -> bool:
    """Whether most of a component is loaded in another dtype than its file's, so that it is copied and not mapped."""
    stored, elements = checkpoint.weights.get(component), checkpoint.num_parameters.get(component)
    if stored is None or elements is None:
        return False
    loaded = component_bytes(elements, precision)
    return abs(stored - loaded) > loaded // 10


def _shape(request: RenderRequest) -> tuple[object, ...]:
    """The settings that decide how much memory a request takes, and which stages it runs."""
    guided = request.guidance_scale > 1, request.do_classifier_free_guidance
    size = request.height, request.width, request.num_frames, request.max_sequence_length, guided
    conditions = tuple((one.is_video, one.frame_index, one.num_frames) for one in request.conditions)
    videos = request.video is not None, request.reference is not None
    windows = request.windows and (request.windows.temporal_tile_size, request.windows.temporal_overlap)
    return *size, request.second_pass, request.sound, videos, conditions, windows
