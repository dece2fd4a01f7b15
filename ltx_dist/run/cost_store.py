"""What a batch is predicted to cost: operations by the checkpoint's configs, corrected by what earlier runs took."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.checkpoints.component_config import component_config
from ltx_dist.estimates.costs import DeviceStage, PredictedCosts, Work
from ltx_dist.estimates.flops import decode_flops, denoise_flops, encode_text_flops
from ltx_dist.estimates.parameters import Config
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.stages import COMPONENT_OF_STAGE, STAGES, Stage
from ltx_dist.pipeline.storage import PLAIN, Storage
from ltx_dist.store.files import write_atomically
from ltx_dist.user_cache import user_cache

MAX_CORRECTION = 1e4
"""A correction beyond this, either way, is no measurement: the file was damaged."""


def predicted_costs(
    checkpoint: Checkpoint,
    precision: str,
    requests: Iterable[RenderRequest],
    weights: Mapping[str, int],
    storage: Storage = PLAIN,
) -> PredictedCosts:
    """Of these requests, corrected by what runs of such a model on such devices took. weights: bytes a component."""
    configs = {component: component_config(checkpoint, component) for component in COMPONENT_OF_STAGE.values()}
    ratios = checkpoint.temporal_compression_ratio, checkpoint.spatial_compression_ratio
    known: dict[tuple[Any, ...], Work] = {}
    works: dict[str, Work] = {}
    for request in requests:
        passes = request.num_inference_steps * (2 if request.do_classifier_free_guidance else 1)
        shape = (request.num_frames, request.height, request.width, passes, request.max_sequence_length)
        if shape not in known:
            known[shape] = _work(configs, ratios, *shape)
        works[request.request_id] = known[shape]
    by_stage = {stage: weights[COMPONENT_OF_STAGE[stage]] for stage in STAGES}
    # Layers that are quantised as they are read hold more than tensors that could be copied to and fro.
    quantised = {Stage.ENCODE_TEXT: checkpoint.weights["text_encoder"]} if storage.text_encoder != "none" else {}
    return PredictedCosts(works, by_stage, _CostStore(checkpoint, precision, storage).load(), quantised)


def keep_corrections(costs: PredictedCosts, checkpoint: Checkpoint, precision: str, storage: Storage = PLAIN) -> None:
    """For the next plan. A cache that cannot be written is as good as none."""
    _CostStore(checkpoint, precision, storage).save(costs.learned())


def _work(
    configs: dict[str, Config],
    ratios: tuple[int, int],
    num_frames: int,
    height: int,
    width: int,
    passes: int,
    text_tokens: int,
) -> Work:
    """The negative prompt is encoded once for all clips, so a clip has one."""
    temporal, spatial = ratios
    frames, rows, columns = (num_frames - 1) // temporal + 1, height // spatial, width // spatial
    return (
        encode_text_flops(configs["text_encoder"], text_tokens),
        denoise_flops(configs["transformer"], frames * rows * columns, text_tokens, passes),
        decode_flops(configs["vae"], frames, rows, columns),
    )


class _CostStore:
    """`costs.json` beside the digests: by device, then by stage, precision and size of the model."""

    def __init__(self, checkpoint: Checkpoint, precision: str, storage: Storage) -> None:
        self._path = user_cache() / "costs.json"
        precisions = {Stage.DECODE: storage.vae_precision(precision)}
        self._model = {
            f"{stage} {precisions.get(stage, precision)} {checkpoint.num_parameters[COMPONENT_OF_STAGE[stage]]}": stage
            for stage in STAGES
        }

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
        name_of: dict[Stage, str] = {stage: name for name, stage in self._model.items()}
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
