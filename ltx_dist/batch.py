"""A batch as asked for: its requests, the checkpoint they are for, and the settings, all checked without torch."""

from __future__ import annotations

from dataclasses import dataclass

from ltx_dist.checkpoint import Checkpoint, open_checkpoint
from ltx_dist.config import RenderConfig
from ltx_dist.presets import Preset, preset_for
from ltx_dist.prompts import read_prompts
from ltx_dist.render_key import render_key
from ltx_dist.scheduling.placement import Inventory, Placement, Wishes, place
from ltx_dist.types import RenderRequest

BYTES_PER_PARAMETER = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests and the checkpoint they are for, checked without torch."""

    config: RenderConfig
    checkpoint: Checkpoint
    preset: Preset
    requests: tuple[RenderRequest, ...]

    def placement(self, inventory: Inventory) -> Placement:
        """Raises ValueError when the devices cannot carry the layout that was asked for."""
        wishes = Wishes(**self.config.placement.model_dump())
        return place(wishes, inventory, self.component_bytes(self.precision(inventory)))

    def render_keys(self, digest: dict[str, str], precision: str) -> dict[str, str]:
        """By request id: what a published clip must have been made with to be kept."""
        return {
            request.request_id: render_key(
                request, digest, self.checkpoint.pipeline_class, precision, self.config.output
            )
            for request in self.requests
        }

    def precision(self, inventory: Inventory) -> str:
        if self.config.model.precision != "auto":
            return self.config.model.precision
        on_cpu = self.config.placement.device == "cpu" or inventory.num_gpus == 0
        return "float32" if on_cpu else "bfloat16"

    def component_bytes(self, precision: str) -> dict[str, int]:
        return {name: count * BYTES_PER_PARAMETER[precision] for name, count in self.checkpoint.num_parameters.items()}


def open_batch(prompts: str, config: RenderConfig) -> Batch:
    """Read and check everything that a run needs. Raises ValueError with every mistake found."""
    checkpoint = open_checkpoint(config.model.checkpoint)
    preset = preset_for(config.model.version, checkpoint)
    requests = read_prompts(prompts, config.defaults, preset, checkpoint)
    return Batch(config, checkpoint, preset, tuple(requests))
