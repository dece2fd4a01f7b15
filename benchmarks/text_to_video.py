"""The stages of a clip made from text alone, for benchmarks that replay their times."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ltx_dist.models.family import FAMILIES
from ltx_dist.models.ltx_video.recipes import RECIPE as WHOLE
from ltx_dist.planning.simulator import Todo

RECIPE = WHOLE.always
FAMILY = replace(FAMILIES[0], recipe=RECIPE)
E, D, V, M = RECIPE.names
STAGES = RECIPE.on_device


def all_stages(request_ids: Iterable[str]) -> Todo:
    """All stages of every request, in the order of `request_ids`."""
    return dict.fromkeys(request_ids, RECIPE.names)
