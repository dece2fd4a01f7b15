"""Latents on disk, so that a run that was killed decodes what it had denoised and denoises nothing twice."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

from ltx_dist.pipeline.payloads import Latents
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.store.files import make_folder, write_atomically
from ltx_dist.store.tensor_file import holds, pack, read, read_facts

ENDING = ".safetensors"


class Spool:
    """A folder of safetensors files, `NAME.safetensors`, each with its request and the key of what its latents were
    made from.

    Files are read back only under the same key, so a changed prompt or checkpoint never meets old latents. To stay
    within `limit_bytes`, files of requests that are not in `batch` go first, the oldest first; what still has no room
    is not written: the batch goes on, and a rerun denoises that clip again. `scratch`: where files are written first,
    a folder in the same file system that the next run clears.
    """

    def __init__(self, folder: Path, scratch: Path, limit_bytes: int, batch: Collection[str] = ()) -> None:
        self._folder, self._scratch, self._limit = folder, scratch, limit_bytes
        make_folder(folder)
        by_age = sorted(folder.glob(f"*{ENDING}"), key=lambda path: path.stat().st_mtime)
        self._used = sum(path.stat().st_size for path in by_age)
        self._strangers = [path for path in by_age if path.name.removesuffix(ENDING) not in batch]
        self.num_refused = 0

    def keep(self, request: RenderRequest, key: str, latents: Latents) -> None:
        """Write latents, durable on return. May raise OSError."""
        tensors = {"latents": latents.latents, "generator_state": latents.generator_state}
        data = pack(key, tensors, {"embeds_dtype": latents.embeds_dtype, "request": json.dumps(asdict(request))})
        path = self._path(request.request_id)
        self._remove(path)
        while self._used + len(data) > self._limit and self._strangers:
            self._remove(self._strangers.pop(0))
        if self._used + len(data) > self._limit:
            self.num_refused += 1
            return
        write_atomically(path, data, self._scratch)
        self._used += len(data)

    def holds(self, request_id: str, key: str) -> bool:
        """Whether there are latents of this key; reads no tensor."""
        return holds(self._path(request_id), key)

    def load(self, request_id: str, key: str) -> Latents | None:
        """Latents of this key, on the CPU; None where there are none, or damaged ones, which then are removed."""
        found = read(self._path(request_id), key)
        if found is None:
            self._remove(self._path(request_id))
            return None
        tensors, facts = found
        return Latents(tensors["latents"], tensors["generator_state"], facts["embeds_dtype"])

    def drop(self, request_id: str) -> None:
        """Remove a request's file, if there is one."""
        self._remove(self._path(request_id))

    def _remove(self, path: Path) -> None:
        if path.exists():
            self._used -= path.stat().st_size
            path.unlink()

    def _path(self, request_id: str) -> Path:
        return self._folder / f"{request_id}{ENDING}"


def spooled_requests(folder: Path) -> dict[Path, str]:
    """The files of a spool's folder that are whole, and the request that each tells: JSON, not checked."""
    facts = {path: read_facts(path) or {} for path in sorted(folder.glob(f"*{ENDING}"))}
    return {path: told["request"] for path, told in facts.items() if "request" in told}
