"""The stages of a clip made from text alone, for benchmarks that replay their times."""

from __future__ import annotations

from ltx_dist.models.ltx_video.recipes import RECIPE as WHOLE

RECIPE = WHOLE.always
E, D, V, M = RECIPE.names
STAGES = RECIPE.on_device
