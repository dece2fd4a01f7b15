"""Identifies a checkpoint by the sha256 of its files; those of large files are cached on disk."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from ltx_dist.checkpoints.checkpoint import Checkpoint, InFile, Source
from ltx_dist.checkpoints.versions import read_config
from ltx_dist.checkpoints.weight_files import weight_files
from ltx_dist.user_cache import user_cache

_CACHED_FROM_BYTES = 1 << 20  # smaller files are hashed in less time than the cache is read


def checkpoint_digest(checkpoint: Checkpoint) -> dict[str, str]:
    """The identity of the model: sha256 hex of each component's config and weights, of the scheduler's and the
    tokenizer's files, and the pipeline class by name. The folder's own name and place do not matter.

    A component of an official file is identified by the whole file and by the config it is read with.
    Weights hashed before are taken from a small cache in the user's cache folder, by path, size and mtime.
    """
    cache = _DigestCache(user_cache() / "digests.json")
    digests = {
        component: _component_digest(component, checkpoint.source(component), cache)
        for component in (*checkpoint.weights, "scheduler", "tokenizer")
    }
    cache.save()
    return {**digests, "pipeline_class": checkpoint.pipeline_class}


def _component_digest(component: str, source: Source, cache: _DigestCache) -> str:
    if isinstance(source, InFile):
        # An official upscaler's config is all in its file, with no packaged one below it.
        packaged = {} if component == "latent_upsampler" else read_config(source.config_name)
        config = json.dumps(packaged | source.changes, sort_keys=True)
        weights = cache.sha256(source.file) if component != "scheduler" else ""
        return hashlib.sha256(f"{weights}\n{config}\n".encode()).hexdigest()
    if component not in ("scheduler", "tokenizer"):
        return _digest([source / "config.json", *weight_files(source, component)], cache)
    # A tokenizer may lie among the text encoder's files, whose weights are not its own.
    return _digest([file for file in source.iterdir() if file.is_file() and file.suffix != ".safetensors"], cache)


def _digest(files: list[Path], cache: _DigestCache) -> str:
    lines = [f"{cache.sha256(file)}  {file.name}\n" for file in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while chunk := content.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


class _DigestCache:
    """sha256 of large files by path, size and mtime_ns. A cache that cannot be read or written is ignored."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = False
        try:
            known = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            known = {}
        self._known: dict[str, Any] = known if isinstance(known, dict) else {}

    def sha256(self, file: Path) -> str:
        stat, key = file.stat(), str(file.resolve())
        if stat.st_size < _CACHED_FROM_BYTES:
            return _sha256(file)
        match self._known.get(key):
            case [stat.st_size, stat.st_mtime_ns, str(digest)]:
                return digest
        digest = _sha256(file)
        self._known[key] = [stat.st_size, stat.st_mtime_ns, digest]
        self._changed = True
        return digest

    def save(self) -> None:
        """Write the cache in one step, so that no other process ever reads half of it."""
        if not self._changed:
            return
        present = {key: entry for key, entry in self._known.items() if Path(key).exists()}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=".digests-")
        except OSError:
            return
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(present, file, indent=1)
            os.replace(temporary, self._path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
