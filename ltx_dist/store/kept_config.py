"""`.ltx-dist/config.json`: the resolved config of the last render into a folder, so that its clips can be made again.

JSON is valid YAML, so `-c` accepts the file, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ltx_dist.inputs.config import RenderConfig
from ltx_dist.inputs.config_file import load_config
from ltx_dist.store.files import INTERNAL, HeldFolder, to_json, write_atomically


def write_settings(folder: Path, held: HeldFolder | None, config: RenderConfig, **resolved: str | None) -> None:
    """Write the config. resolved: what `auto`, a branch or a relative path stood for, by key of `model`.

    May raise OSError.
    """
    document: dict[str, Any] = config.model_dump(mode="json")
    document["model"] |= resolved
    write_atomically(_path(folder), to_json(document), folder / INTERNAL / "tmp", held)


def read_settings(folder: Path, overrides: list[str]) -> RenderConfig:
    """The config with overrides on top. Raises ValueError if there is none, or for an error in an override."""
    if not _path(folder).is_file():
        raise ValueError(f"{folder}: no clips of `ltx-dist render` are here ({_path(folder)} is missing)")
    return load_config(_path(folder), overrides)


def _path(folder: Path) -> Path:
    return folder / INTERNAL / "config.json"
