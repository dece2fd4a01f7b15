"""What `auto` stands for in `model.precision`, and which GPUs a batch leaves out because of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ltx_dist.inputs.config import RenderConfig
from ltx_dist.placement.inventory import Inventory


def chosen_precision(config: RenderConfig, inventory: Inventory) -> str:
    """The dtype of the weights on these devices, by name."""
    if config.model.precision != "auto":
        return config.model.precision
    on_cpu = config.placement.device == "cpu" or not inventory.gpus
    return "float32" if on_cpu or all(gpu.lacks_bfloat16 for gpu in inventory.gpus) else "bfloat16"


def usable(config: RenderConfig, inventory: Inventory) -> Inventory:
    """The inventory without the GPUs that lack bfloat16, if `auto` stands for it and the other GPUs are enough.

    All workers of a batch use one precision, and float32 would slow down the newer GPUs.
    """
    newer = tuple(gpu for gpu in inventory.gpus if not gpu.lacks_bfloat16)
    is_chosen = config.model.precision == "auto" and chosen_precision(config, inventory) == "bfloat16"
    if not is_chosen or len(newer) < (config.placement.devices or 1):
        return inventory
    return replace(inventory, gpus=newer)


def one_device(config: RenderConfig, inventory: Inventory) -> Inventory:
    """The inventory with at most one GPU, the first usable one: what the local executor runs on."""
    return replace(inventory, gpus=usable(config, inventory).gpus[:1])


def unused_gpus(config: RenderConfig, inventory: Inventory) -> str | None:
    """A warning that names the GPUs that `usable` leaves out; None if there are none."""
    used = usable(config, inventory).gpus
    unused = Counter(gpu.name for gpu in inventory.gpus if gpu not in used)
    if not unused:
        return None
    names = ", ".join(name if number == 1 else f"{number} x {name}" for name, number in unused.items())
    return f"not used, because bfloat16 is slow on them: {names}; to use them, set model.precision=float32"
