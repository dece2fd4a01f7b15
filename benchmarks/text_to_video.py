"""The stages of a clip made from text alone, for benchmarks that replay their times."""

from __future__ import annotations

from ltx_dist.models.ltx_video.recipes import RECIPE as WHOLE
from ltx_dist.pipeline.recipe import Recipe

RECIPE = Recipe("text to video", tuple(stage for stage in WHOLE if not stage.only_with))
E, D, V, M = RECIPE.names
STAGES = RECIPE.on_device
