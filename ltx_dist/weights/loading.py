"""Loads a component of a checkpoint directly in its precision, from safetensors only, for all families."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors import safe_open

from ltx_dist.checkpoints.checkpoint import Checkpoint, InFile, Source
from ltx_dist.checkpoints.versions import config_file, read_config

# Otherwise every worker would print a progress bar per component, over the live view.
diffusers.utils.logging.disable_progress_bar()
transformers.utils.logging.disable_progress_bar()

# Warnings repeated for every worker or clip, which users cannot act on, or which are reported once before the run.
_NOISE = {
    "diffusers.pipelines.ltx.pipeline_ltx": "The following part of your input was truncated",
    "diffusers.pipelines.ltx.pipeline_ltx_condition": "The following part of your input was truncated",
    "diffusers.models.modeling_utils": "should be kept in float32: []",
    "diffusers.schedulers.scheduling_flow_match_euler_discrete": "`timesteps` were passed without `sigmas`",
    "bitsandbytes.autograd._functions": "inputs will be cast from",
}
for _logger, _words in _NOISE.items():
    logging.getLogger(_logger).addFilter(lambda record, words=_words: words not in record.getMessage())

CPU = torch.device("cpu")

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def pipeline_class(checkpoint: Checkpoint) -> Any:
    """The diffusers class that the checkpoint names, which owns the numerics of every stage."""
    return getattr(diffusers, checkpoint.pipeline_class)


def load_noise_scheduler(checkpoint: Checkpoint) -> diffusers.FlowMatchEulerDiscreteScheduler:
    source = checkpoint.source("scheduler")
    scheduler_class: Any = diffusers.FlowMatchEulerDiscreteScheduler
    if isinstance(source, InFile):
        return scheduler_class.from_config(read_config(source.config_name) | source.changes)
    return scheduler_class.from_pretrained(source, local_files_only=True)


def load_model(model_class: Any, source: Source, dtype: torch.dtype) -> torch.nn.Module:
    """The model. diffusers maps the file into memory and casts tensor by tensor, so there is never a second copy."""
    if not isinstance(source, InFile):
        return complete(model_class, source, dtype)
    # With our own config, the hub is not queried; `changes` override it.
    config = str(config_file(source.config_name))
    model = model_class.from_single_file(str(source.file), config=config, dtype=dtype, **source.changes)
    missing = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if missing:
        raise ValueError(f"{source.file}: {len(missing)} tensors are missing, such as {missing[0]}; download it again")
    return model.eval()


def complete(model_class: Any, folder: Any, dtype: torch.dtype, **how: Any) -> torch.nn.Module:
    """The model from the folder, with all its weights. Raises ValueError if weights and config.json do not match.

    diffusers and transformers fill missing weights with random numbers and skip unexpected ones, with only a warning.
    """
    model, found = model_class.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True, **how
    )
    for kind in ("missing", "unexpected", "mismatched"):
        if keys := sorted(map(str, found.get(f"{kind}_keys") or ())):
            raise ValueError(f"{len(keys)} {kind} tensors, such as {keys[0]}: config.json belongs to other weights")
    return model.eval()


def fill(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Assign these weights to a module on the meta device. Raises ValueError unless they match exactly."""
    wanted = module.state_dict()
    for kind, names in {
        "missing": wanted.keys() - tensors.keys(),
        "unexpected": tensors.keys() - wanted.keys(),
        "mismatched": {name for name in wanted.keys() & tensors.keys() if wanted[name].shape != tensors[name].shape},
    }.items():
        if names:
            raise ValueError(f"{len(names)} {kind} tensors, such as {min(names)}: the config belongs to other weights")
    module.load_state_dict(tensors, assign=True)


def read_tensors(file: Path, is_wanted: Callable[[str], bool], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The tensors of a file whose names are wanted, floating-point ones in `dtype`."""
    with safe_open(file, framework="pt") as opened:
        names = [name for name in opened.keys() if is_wanted(name)]  # noqa: SIM118 (not a dict)
        return {name: _cast(opened.get_tensor(name), dtype) for name in names}


def _cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
