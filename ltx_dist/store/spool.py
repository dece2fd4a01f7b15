"""Latents on disk, so that a run that was killed decodes what it had denoised and denoises nothing twice."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

from ltx_dist.pipeline.payloads import Latents, SoundLatents
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.store.files import HeldFolder, flat, make_folder, remove_file, unflat, write_atomically
from ltx_dist.store.spool_folder import ENDING, list_spool
from ltx_dist.store.tensor_file import holds, pack, read, read_facts


class Spool:
    """A folder of safetensors files, `NAME.safetensors` (a / in it as %2F), each with its request and the key of what
    its latents were made from.

    Files are read back only under the same key, so a changed prompt or checkpoint never meets old latents. To stay
    within `limit_bytes`, files of requests that are not in `batch` go first, the oldest first; what still has no room
    is not written: the batch continues, and a rerun denoises that clip again. `scratch`: where files are written first,
    a folder in the same file system that the next run clears. `held`: the output folder that it all lies in.
    """

    def __init__(
        self,
        folder: Path,
        scratch: Path,
        limit_bytes: int,
        batch: Collection[str] = (),
        held: HeldFolder | None = None,
    ) -> None:
        self._folder, self._scratch, self._limit, self._held = folder, scratch, limit_bytes, held
        make_folder(folder, held)
        self._sizes = {entry.name: entry.size for entry in sorted(list_spool(folder, held), key=lambda one: one.mtime)}
        self._strangers = [name for name in self._sizes if unflat(name.removesuffix(ENDING)) not in batch]
        self.num_refused = 0

    def keep(self, request: RenderRequest, key: str, latents: Latents) -> None:
        """Write latents, durable on return. May raise OSError."""
        tensors = {"latents": latents.latents, "generator_state": latents.generator_state}
        if isinstance(latents, SoundLatents):
            tensors["audio_latents"] = latents.audio_latents
        data = pack(key, tensors, {"embeds_dtype": latents.embeds_dtype, "request": json.dumps(asdict(request))})
        path = self._path(request.request_id)
        self._remove(path.name)
        while self._used + len(data) > self._limit and self._strangers:
            self._remove(self._strangers.pop(0))
        if self._used + len(data) > self._limit:
            self.num_refused += 1
            return
        write_atomically(path, data, self._scratch, self._held)
        self._sizes[path.name] = len(data)

    def holds(self, request_id: str, key: str) -> bool:
        """Whether there are latents of this key; reads no tensor."""
        return holds(self._path(request_id), key)

    def load(self, request_id: str, key: str) -> Latents | None:
        """Latents of this key, on the CPU; None where there are none, or damaged ones, which then are removed."""
        found = read(self._path(request_id), key)
        if found is None:
            self.drop(request_id)
            return None
        tensors, facts = found
        of_video = tensors["latents"], tensors["generator_state"], facts["embeds_dtype"]
        return SoundLatents(*of_video, tensors["audio_latents"]) if "audio_latents" in tensors else Latents(*of_video)

    def drop(self, request_id: str) -> None:
        """Remove a request's file, if there is one."""
        self._remove(self._path(request_id).name)

    @property
    def _used(self) -> int:
        return sum(self._sizes.values())

    def _remove(self, name: str) -> None:
        remove_file(self._folder / name, self._held)
        self._sizes.pop(name, None)

    def _path(self, request_id: str) -> Path:
        return self._folder / f"{flat(request_id)}{ENDING}"


def spooled_requests(folder: Path) -> dict[Path, str]:
    """The files of a spool's folder that are whole, and the request that each tells: JSON, not checked."""
    paths = sorted(folder / entry.name for entry in list_spool(folder))
    facts = {path: read_facts(path) or {} for path in paths}
    return {path: told["request"] for path, told in facts.items() if "request" in told}
