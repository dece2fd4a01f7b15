"""Text embeddings on disk, from batch to batch: a prompt that was encoded before needs no text encoder."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from ltx_dist.pipeline.payloads import Conditioning
from ltx_dist.store.files import write_atomically
from ltx_dist.store.tensor_file import pack, read

ENDING = ".safetensors"
ABANDONED_SECONDS = 3600.0
"""A file in the scratch folder that is older was left by a run that was killed while it wrote it."""


class EmbeddingCache:
    """A folder of safetensors files, one per prompt: `KEY.safetensors` with its embeddings and attention mask.

    Keys are those of `render_key.embedding_keys`: one for the prompt and, with guidance, one for the negative prompt.
    Any number of runs may use the folder at once: files appear whole, and what is missing, damaged or was removed
    meanwhile is encoded again. At `limit_bytes` the least recently used go, and never those that this run uses. A
    folder that cannot be written is no clip's failure: nothing more is written, and `problem` says why.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder, self._scratch, self._limit = folder, folder / "tmp", limit_bytes
        self._own: set[str] = set()
        self._bad: set[str] = set()  # until they are written again
        self._used: int | None = None
        self.problem: str | None = None

    def holds(self, keys: Sequence[str]) -> bool:
        """Whether all of these are there, whole: each is read once, 2 MB, because much hangs on the answer."""
        return all(key in self._own or self._find(key) for key in keys)

    def load(self, keys: Sequence[str]) -> Conditioning | None:
        """The embeddings under these keys, on the CPU; None where one is not there, or not what was written."""
        tensors: list[torch.Tensor | None] = []
        for key in keys:
            found = read(self._path(key), key)
            if found is None:
                self._own.discard(key)
                self._bad.add(key)  # read-only, it could not be removed
                return None
            tensors += [found[0]["embeds"], found[0]["mask"]]
        return Conditioning(*tensors, *[None] * (4 - len(tensors)))  # type: ignore[arg-type]

    def keep(self, keys: Sequence[str], conditioning: Conditioning) -> None:
        """Write those of the embeddings that are not there yet."""
        pairs = (
            (conditioning.prompt_embeds, conditioning.prompt_attention_mask),
            (conditioning.negative_prompt_embeds, conditioning.negative_prompt_attention_mask),
        )
        for key, (embeds, mask) in zip(keys, pairs, strict=False):
            if self.problem is None and not self.holds([key]):
                assert embeds is not None and mask is not None, key
                try:
                    self._write(key, pack(key, {"embeds": embeds, "mask": mask}))
                except OSError as error:
                    self.problem = f"{error.filename or self._folder}: {error.strerror or error}"

    def _find(self, key: str) -> bool:
        if key in self._bad or read(self._path(key), key) is None:
            return False
        self._own.add(key)
        with suppress(OSError):  # of another user, or gone since
            os.utime(self._path(key))  # used now: other runs remove older ones first
        return True

    def _write(self, key: str, data: bytes) -> None:
        if self._used is None:
            self._scratch.mkdir(parents=True, exist_ok=True)
            self._clear_scratch()
            self._used = sum(size for _, size, _ in self._entries())
        if self._used + len(data) > self._limit and not self._make_room(len(data)):
            return
        write_atomically(self._path(key), data, self._scratch)
        self._used += len(data)
        self._bad.discard(key)
        self._own.add(key)

    def _make_room(self, num_bytes: int) -> bool:
        """Remove the least recently used until so many more bytes fit. Counts again: other runs write here, too."""
        entries = sorted(self._entries())
        self._used = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if self._used + num_bytes <= self._limit:
                break
            if path.name.removesuffix(ENDING) not in self._own:
                path.unlink(missing_ok=True)
                self._used -= size
        return self._used + num_bytes <= self._limit

    def _entries(self) -> list[tuple[float, int, Path]]:
        """When each file was last used, its bytes, and where it is."""
        found = []
        for path in self._folder.glob(f"*{ENDING}"):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            found.append((stat.st_mtime, stat.st_size, path))
        return found

    def _clear_scratch(self) -> None:
        for path in self._scratch.iterdir():
            try:
                if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                    path.unlink()
            except FileNotFoundError:
                continue

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}{ENDING}"
