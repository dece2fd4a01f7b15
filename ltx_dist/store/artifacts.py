"""Keeps stage outputs on disk: latents of unfinished clips, and encodings for later runs."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from ltx_dist.pipeline.payloads import StageOutput
from ltx_dist.store.artifact_folder import Artifact, artifact_path, clear_abandoned, list_artifacts
from ltx_dist.store.files import HeldFolder, make_folder, remove_file, write_atomically
from ltx_dist.store.payload_tensors import from_tensors, to_tensors
from ltx_dist.store.tensor_file import holds, pack, read, read_facts


class ArtifactStore:
    """A folder of safetensors files, one per name, each with one output and the key of what it was made from.

    Files are read back only under the same key, so a changed prompt or checkpoint never uses an old output. To stay
    within `limit_bytes`, the least recently used files are removed, but never those of `names` or those that this run
    has used. An output that still does not fit is not written; `num_refused` counts these.

    scratch: a folder in the same file system, where files are written first. names: of outputs that this run may need.
    held: the output folder that contains all of this.
    is_shared: other runs use the folder at the same time, so files may disappear at any moment. Therefore `holds` reads
    a file completely once and marks it as used, and sizes are counted again before any file is removed.
    """

    def __init__(
        self,
        folder: Path,
        scratch: Path,
        limit_bytes: int,
        names: Collection[str] = (),
        held: HeldFolder | None = None,
        is_shared: bool = False,
    ) -> None:
        self._folder, self._scratch, self._limit, self._held = folder, scratch, limit_bytes, held
        self._own = set(names)
        self._is_shared = is_shared
        self._checked: set[tuple[str, str]] = set()
        self._bad: set[tuple[str, str]] = set()  # damaged outputs, until they are written again
        self._files: dict[str, Artifact] | None = None
        self._is_ready = False
        self.num_refused = 0
        if not is_shared:
            make_folder(folder, held)

    def keep(self, name: str, key: str, output: StageOutput, facts: Mapping[str, str] | None = None) -> None:
        """Write an output durably. May raise OSError. facts: texts by name that are stored with it."""
        tensors, texts = to_tensors(output)
        data = pack(key, tensors, {**(facts or {}), **texts})
        self._prepare()
        self._own.add(name)
        self.drop(name)
        if not self._make_room(len(data)):
            self.num_refused += 1
            return
        write_atomically(self._path(name), data, self._scratch, self._held)
        self._known[name] = Artifact(name, len(data), time.time())
        self._bad.discard((name, key))
        self._checked.add((name, key))

    def holds(self, name: str, key: str) -> bool:
        """Whether there is an output with this name and key. It is read completely only in a shared folder."""
        if not self._is_shared:
            return holds(self._path(name), key)
        if (name, key) in self._checked:
            return True
        if (name, key) in self._bad or self._read(name, key) is None:
            return False
        self._own.add(name)
        self._checked.add((name, key))
        with suppress(OSError):  # owned by another user, or removed since
            os.utime(self._path(name))  # mark it as used now: other runs remove older files first
        return True

    def load(self, name: str, key: str) -> StageOutput | None:
        """The output, on the CPU; None if there is none of this key, or a damaged one, which `holds` then denies."""
        if (found := self._read(name, key)) is not None:
            return found
        self._checked.discard((name, key))
        if self._is_shared:
            self._bad.add((name, key))  # because a read-only file cannot be removed
        else:
            self.drop(name)
        return None

    def _read(self, name: str, key: str) -> StageOutput | None:
        """The output; None for a file that is missing, has another key, is damaged, or is not one of our outputs."""
        with suppress(ValueError, KeyError, TypeError):
            if (found := read(self._path(name), key)) is not None:
                return from_tensors(*found)
        return None

    def drop(self, name: str) -> None:
        """Remove an output, if it is there."""
        remove_file(self._path(name), self._held)
        self._known.pop(name, None)

    def _prepare(self) -> None:
        """Create the folders before the first write; a cache that is only read needs none."""
        if self._is_shared and not self._is_ready:
            make_folder(self._folder)
            make_folder(self._scratch)
            clear_abandoned(self._scratch)
        self._is_ready = True

    def _make_room(self, num_bytes: int) -> bool:
        """Remove files until this many more bytes fit. Returns whether they do."""
        if self._used + num_bytes > self._limit:
            if self._is_shared:
                self._files = None
            for artifact in sorted(self._known.values(), key=lambda one: one.used):
                if self._used + num_bytes <= self._limit:
                    break
                if artifact.name not in self._own:
                    self.drop(artifact.name)
        return self._used + num_bytes <= self._limit

    @property
    def _used(self) -> int:
        return sum(artifact.size for artifact in self._known.values())

    @property
    def _known(self) -> dict[str, Artifact]:
        """The files by name, as far as this run knows."""
        if self._files is None:
            self._files = {artifact.name: artifact for artifact in list_artifacts(self._folder, self._held)}
        return self._files

    def _path(self, name: str) -> Path:
        return artifact_path(self._folder, name)


def saved_requests(folder: Path) -> dict[Path, str]:
    """The complete files of a folder that hold the request they were made for, with that request as unchecked JSON."""
    paths = sorted(artifact_path(folder, artifact.name) for artifact in list_artifacts(folder))
    facts = {path: read_facts(path) or {} for path in paths}
    return {path: told["request"] for path, told in facts.items() if "request" in told}
