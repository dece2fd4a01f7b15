"""Converts the prompts and settings of a Python program into what the rest of the package takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from ltx_dist.checkpoints.checkpoint import Fetch
from ltx_dist.checkpoints.hub import fetch_snapshot
from ltx_dist.inputs.config import RenderConfig
from ltx_dist.inputs.config_file import config_from, load_config
from ltx_dist.inputs.given_rows import given_rows, plain
from ltx_dist.inputs.vary import with_vary
from ltx_dist.messages import show
from ltx_dist.run.batch import Batch, open_batch

Prompts = str | PathLike[str] | Iterable[str | Mapping[str, Any]]
"""The path of a prompt file, or rows: strings and mappings with the fields of a row; also a DataFrame."""

Config = str | PathLike[str] | Mapping[str, Any] | RenderConfig | None
"""The path of a YAML file, a mapping (of sections, or of dotted keys), or a config."""


def batch_of(
    prompts: Prompts,
    model: str | PathLike[str] | None,
    config: Config,
    vary: Mapping[str, Any] | None,
    fetch: Fetch = fetch_snapshot,
) -> Batch:
    """The checked batch. Raises ValueError with all errors. fetch: as in `open_batch`."""
    settings = config_of(model, config)
    if vary:
        settings = with_vary(settings, plain(vary), "vary")
    return open_batch(rows_of(prompts), settings, fetch)


def rows_of(prompts: Prompts) -> str | list[Any]:
    """The path of a prompt file, or the rows that were given."""
    if not isinstance(prompts, str | PathLike):
        return given_rows(prompts)
    path = fspath(prompts)
    if path != "-" and "://" not in path and not Path(path).suffix:
        raise ValueError(f"prompts: {show(path)} is not the path of a prompt file; put a single prompt into a list")
    return path


def config_of(model: str | PathLike[str] | None, config: Config) -> RenderConfig:
    """The config, with `model` as its checkpoint if that is given. Raises ValueError likewise."""
    if isinstance(config, RenderConfig):
        settings = config
    elif isinstance(config, Mapping):
        settings = config_from(config)
    else:
        settings = load_config(None if config is None else Path(config))
    if model is None:
        return settings
    if not fspath(model):
        raise ValueError("model: empty; give `demo`, a folder, a .safetensors file, or a name on the Hugging Face hub")
    return settings.model_copy(update={"model": settings.model.model_copy(update={"checkpoint": fspath(model)})})
