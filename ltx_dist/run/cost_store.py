"""Predicted costs of a batch: operations from the checkpoint's configs, corrected by times of earlier runs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.checkpoints.component_config import component_config
from ltx_dist.estimates.costs import DeviceStage, PredictedCosts, Work
from ltx_dist.models.family import Family
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import PLAIN, Storage
from ltx_dist.store.files import write_atomically
from ltx_dist.user_cache import user_cache

MAX_CORRECTION = 1e4
"""A correction by more than this factor, up or down, cannot be a measurement: the file must be damaged."""


def predicted_costs(
    family: Family,
    checkpoint: Checkpoint,
    precision: str,
    requests: Iterable[RenderRequest],
    storage: Storage = PLAIN,
) -> PredictedCosts:
    """Costs of these requests, corrected by earlier runs of the same kind of model on the same kinds of devices."""
    configs = component_configs(family, checkpoint)
    ratios = checkpoint.spatial_compression_ratio, checkpoint.temporal_compression_ratio
    known: dict[RenderRequest, Work] = {}
    works: dict[str, Work] = {}
    for request in requests:
        shape = replace(request, request_id="", prompt="", negative_prompt="", seed=0)
        if shape not in known:
            known[shape] = family.stage_work(configs, ratios, request)
        works[request.request_id] = known[shape]
    weights = family.weight_bytes(configs, checkpoint.num_loaded(), precision, storage)
    # Quantised layers hold more than tensors that could be copied between host and device, so they are read again.
    quantised = {name: checkpoint.weights[name] for name in weights if storage.is_quantised(name)}
    return PredictedCosts(
        family.recipe,
        works,
        family.stage_rates,
        {name: found.total for name, found in weights.items()},
        _CostStore(family, checkpoint, precision, storage).load(),
        quantised,
    )


def keep_corrections(
    costs: PredictedCosts, family: Family, checkpoint: Checkpoint, precision: str, storage: Storage = PLAIN
) -> None:
    """Save this run's measurements for the next plan; a cache that cannot be written is ignored."""
    _CostStore(family, checkpoint, precision, storage).save(costs.learned())


def component_configs(family: Family, checkpoint: Checkpoint) -> dict[str, dict[str, Any]]:
    """The config of each component of the family."""
    described = (component.name for component in family.components if component.has_config)
    return {name: component_config(checkpoint, name) for name in described}


class _CostStore:
    """`costs.json` beside the digests: by device, then by stage, precision or storage, and size of the model."""

    def __init__(self, family: Family, checkpoint: Checkpoint, precision: str, storage: Storage) -> None:
        self._path = user_cache() / "costs.json"
        self._model: dict[str, str] = {}
        for name in family.recipe.on_device:
            component = family.recipe[name].components[0]
            size = checkpoint.num_parameters.get(component, 0)
            self._model[f"{name} {storage.stored_as(component, precision)} {size}"] = name

    def load(self) -> dict[DeviceStage, float]:
        found: dict[DeviceStage, float] = {}
        for device, by_model in _read(self._path).items():
            for model, stage in self._model.items():
                value = by_model.get(model) if isinstance(by_model, dict) else None
                if isinstance(value, float | int) and 1 / MAX_CORRECTION < value < MAX_CORRECTION:
                    found[device, stage] = float(value)
        return found

    def save(self, corrections: dict[DeviceStage, float]) -> None:
        if not corrections:
            return
        known = _read(self._path)
        name_of: dict[str, str] = {stage: name for name, stage in self._model.items()}
        for (device, stage), value in corrections.items():
            kept = known.get(device)
            known[device] = {**(kept if isinstance(kept, dict) else {}), name_of[stage]: round(value, 4)}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, json.dumps(known, indent=1).encode(), self._path.parent)
        except OSError:
            return


def _read(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}
