"""Decides the stages of each device: by the layout alone, or by what fits.

Stages that run on the same components are hosted together: they share the loaded weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, combinations

from ltx_dist.pipeline.recipe import Recipe
from ltx_dist.placement.inventory import DeviceInfo

Hosted = tuple[str, ...]
"""Stages of one device, in the recipe's order."""

PINNED_DEVICES = 3
"""Three devices: for the stages before the main ones, for the main ones, and for those after."""


def hosted_by_layout(layout: str, num_devices: int, recipe: Recipe, needed: Hosted) -> list[Hosted]:
    """The stages of each device. Pinned, the recipe's main stages get every device that the others leave."""
    if layout in ("shared", "replicated"):
        return [needed] * num_devices
    assert layout == "pinned"
    if num_devices == 1:
        raise ValueError(
            "placement.layout: pinned needs at least 2 devices and has 1; "
            "use shared, or set placement.devices to 2 or more"
        )
    main = tuple(stage for stage in needed if stage in recipe.main)
    if not main or main == needed:
        return [needed] * num_devices
    before = tuple(stage for stage in needed if recipe.position(stage) < recipe.position(recipe.main[0]))
    after = tuple(stage for stage in needed if stage not in main and stage not in before)
    if before and after and num_devices == 2:
        return [(*before, *after), main]
    ends = [stages for stages in (before, after) if stages]
    middle = [main] * (num_devices - len(ends))
    return [*([before] if before else []), *middle, *([after] if after else [])]


def by_use(recipe: Recipe, needed: Hosted) -> list[Hosted]:
    """Sets of stages, the most useful for a device first: those that take the largest share of a clip's time."""
    groups = [group for group in (tuple(s for s in g if s in needed) for g in recipe.groups) if group]
    subsets = chain.from_iterable(combinations(groups, count) for count in range(len(groups), 0, -1))
    sets = [recipe.ordered(tuple(chain.from_iterable(subset))) for subset in subsets]
    return sorted(sets, key=lambda stages: -sum(recipe[stage].share for stage in stages))


def hosted_by_size(
    devices: Sequence[DeviceInfo],
    recipe: Recipe,
    needed: Hosted,
    fits: Callable[[DeviceInfo, Hosted], bool],
) -> list[Hosted]:
    """For each device, the stages that fit at once; a stage without a device goes to the smallest that can hold it.

    If no device can hold it beside others, the smallest device runs all stages in turns.
    """
    sets = by_use(recipe, needed)
    hosted = [next((stages for stages in sets if fits(device, stages)), needed) for device in devices]
    smallest_first = sorted(range(len(devices)), key=lambda index: devices[index].memory_bytes or 0)
    for missing in needed:
        if any(missing in stages for stages in hosted):
            continue
        options = [
            (index, stages)
            for index in smallest_first
            for stages in sets
            if missing in stages and fits(devices[index], stages) and _others_host(hosted, index, stages)
        ]
        index, stages = options[0] if options else (smallest_first[0], needed)
        hosted[index] = stages
    return hosted


def _others_host(hosted: Sequence[Hosted], index: int, stages: Hosted) -> bool:
    """Whether other devices run all stages that the device at `index` would give up."""
    elsewhere = {stage for i, other in enumerate(hosted) if i != index for stage in other}
    return all(stage in stages or stage in elsewhere for stage in hosted[index])
