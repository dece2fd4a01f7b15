"""A batch as asked for, checked without torch; and the same with its place: workers, precision, digests."""

from __future__ import annotations

from dataclasses import dataclass

from ltx_dist.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ltx_dist.checkpoints.digests import checkpoint_digest
from ltx_dist.config import RenderConfig
from ltx_dist.inputs.prompts import read_prompts
from ltx_dist.presets import Preset, preset_for
from ltx_dist.render_key import latents_key, render_key
from ltx_dist.scheduling.inventory import Inventory
from ltx_dist.scheduling.memory import component_bytes
from ltx_dist.scheduling.placement import Placement, Wishes, place
from ltx_dist.types import RenderRequest


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests, and the checkpoint and settings they are for."""

    config: RenderConfig
    checkpoint: Checkpoint
    preset: Preset
    requests: tuple[RenderRequest, ...]

    def placement(self, inventory: Inventory) -> Placement:
        """Raises ValueError when the devices cannot carry the layout that was asked for."""
        wishes = Wishes(**self.config.placement.model_dump())
        return place(wishes, inventory, self.component_bytes(self.precision(inventory)))

    def precision(self, inventory: Inventory) -> str:
        """The dtype of the weights on the device, by name."""
        if self.config.model.precision != "auto":
            return self.config.model.precision
        on_cpu = self.config.placement.device == "cpu" or not inventory.gpus
        return "float32" if on_cpu else "bfloat16"

    def component_bytes(self, precision: str) -> dict[str, int]:
        """Of the weights as they are loaded, by component."""
        return {name: component_bytes(count, precision) for name, count in self.checkpoint.num_loaded().items()}


@dataclass(frozen=True, slots=True)
class PlacedBatch:
    """A batch on the devices that were found. `digest` is the checkpoint's, by component."""

    batch: Batch
    placement: Placement
    precision: str
    digest: dict[str, str]

    def render_key(self, request: RenderRequest) -> str:
        """What a published clip must have been made with to be kept."""
        batch = self.batch
        return render_key(request, self.digest, batch.checkpoint.pipeline_class, self.precision, batch.config.output)

    def latents_key(self, request: RenderRequest) -> str:
        """What kept latents must have been made with to be decoded."""
        return latents_key(request, self.digest, self.batch.checkpoint.pipeline_class, self.precision)


def open_batch(prompts: str, config: RenderConfig) -> Batch:
    """Read and check everything that a run needs. Raises ValueError with every mistake found."""
    checkpoint = open_checkpoint(config.model.checkpoint, config.model.text_encoder)
    preset = preset_for(config.model.version, checkpoint)
    requests = read_prompts(prompts, config.defaults, preset, checkpoint)
    return Batch(config, checkpoint, preset, tuple(requests))


def place_batch(batch: Batch, inventory: Inventory) -> PlacedBatch:
    """Reads the whole checkpoint once, for its digests. Raises ValueError as `Batch.placement` does."""
    return PlacedBatch(
        batch, batch.placement(inventory), batch.precision(inventory), checkpoint_digest(batch.checkpoint)
    )
