"""Which stages each device hosts: by the layout alone, or by what fits it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ltx_dist.pipeline.stages import STAGES, Stage
from ltx_dist.placement.inventory import DeviceInfo


def hosted_by_layout(layout: str, num_devices: int, needed: tuple[Stage, ...]) -> list[tuple[Stage, ...]]:
    """The stages of each device. Pinned, denoising gets every device that the other needed stages leave."""
    if layout in ("shared", "replicated"):
        return [needed] * num_devices
    assert layout == "pinned"
    if num_devices == 1:
        raise ValueError(
            "placement.layout: pinned needs at least 2 devices and has 1; "
            "use shared, or set placement.devices to 2 or more"
        )
    if Stage.DENOISE not in needed:
        return [needed] * num_devices
    if Stage.ENCODE_TEXT not in needed:
        return [*[(Stage.DENOISE,)] * (num_devices - 1), (Stage.DECODE,)]
    if num_devices == 2:
        return [(Stage.ENCODE_TEXT, Stage.DECODE), (Stage.DENOISE,)]
    return [(Stage.ENCODE_TEXT,), *[(Stage.DENOISE,)] * (num_devices - 2), (Stage.DECODE,)]


def by_use(needed: tuple[Stage, ...]) -> list[tuple[Stage, ...]]:
    """Sets of stages, the most useful for a device first: denoising takes most of the time, encoding least."""
    encode, denoise, decode = STAGES
    order = [STAGES, (denoise, decode), (encode, denoise), (denoise,), (encode, decode), (decode,), (encode,)]
    return [stages for stages in order if set(stages) <= set(needed)]


def hosted_by_size(
    devices: Sequence[DeviceInfo],
    needed: tuple[Stage, ...],
    fits: Callable[[DeviceInfo, tuple[Stage, ...]], bool],
) -> list[tuple[Stage, ...]]:
    """For each device what fits it all at once; a stage that then has no device goes to the smallest that can have it.

    Where nothing holds the stage beside others, the smallest device runs all stages in turns.
    """
    sets = by_use(needed)
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


def _others_host(hosted: Sequence[tuple[Stage, ...]], index: int, stages: tuple[Stage, ...]) -> bool:
    """Whether what the device at `index` runs now and would no longer run is run elsewhere."""
    elsewhere = {stage for i, other in enumerate(hosted) if i != index for stage in other}
    return all(stage in stages or stage in elsewhere for stage in hosted[index])
