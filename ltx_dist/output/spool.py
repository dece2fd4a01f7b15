"""Latents on disk, so that a run that was killed decodes what it had denoised and denoises nothing twice."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Semaphore

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ltx_dist.output.files import output_errors, write_atomically
from ltx_dist.types import Latents, StageOutput

MAX_WAITING = 16
"""Latents in memory that wait for a disk slower than the GPUs; a stop has to write them all."""


class Spool:
    """A folder of safetensors files, `NAME.safetensors`, each with the key of what its latents were made from.

    Files are read back only under the same key, so a changed prompt or checkpoint never meets old latents. To stay
    within `limit_bytes`, files of requests that are not in `batch` go first, the oldest first; what still has no room
    is not written: the batch goes on, and a rerun denoises that clip again. `scratch`: where files are written first,
    a folder in the same file system that the next run clears.
    """

    def __init__(self, folder: Path, scratch: Path, limit_bytes: int, batch: Collection[str] = ()) -> None:
        self._folder, self._scratch, self._limit = folder, scratch, limit_bytes
        folder.mkdir(parents=True, exist_ok=True)
        by_age = sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
        self._used = sum(path.stat().st_size for path in by_age)
        self._strangers = [path for path in by_age if path.name.removesuffix(".safetensors") not in batch]
        self.num_refused = 0

    def keep(self, request_id: str, key: str, latents: Latents) -> None:
        """Write latents, durable on return. May raise OSError."""
        tensors = {"latents": latents.latents.contiguous(), "generator_state": latents.generator_state}
        data = save(tensors, {"key": key, "embeds_dtype": latents.embeds_dtype})
        path = self._path(request_id)
        self._remove(path)
        while self._used + len(data) > self._limit and self._strangers:
            self._remove(self._strangers.pop(0))
        if self._used + len(data) > self._limit:
            self.num_refused += 1
            return
        write_atomically(path, data, self._scratch)
        self._used += len(data)

    def holds(self, request_id: str, key: str) -> bool:
        """Whether `load` would find latents of this key; reads no tensor."""
        try:
            with safe_open(self._path(request_id), framework="pt") as file:
                return (file.metadata() or {}).get("key") == key
        except (OSError, SafetensorError):
            return False

    def load(self, request_id: str) -> Latents:
        """The latents that `holds` found, on the CPU."""
        with safe_open(self._path(request_id), framework="pt") as file:
            dtype = file.metadata()["embeds_dtype"]
            return Latents(file.get_tensor("latents"), file.get_tensor("generator_state"), dtype)

    def drop(self, request_id: str) -> None:
        """Remove a request's file, if there is one."""
        self._remove(self._path(request_id))

    def _remove(self, path: Path) -> None:
        if path.exists():
            self._used -= path.stat().st_size
            path.unlink()

    def _path(self, request_id: str) -> Path:
        return self._folder / f"{request_id}.safetensors"


class SpoolWriter:
    """Writes to a spool in a thread of its own, in order, so that the loop of the batch never waits for the disk.

    After the first error nothing more is written, and the next call raises it, an OSError as OutputError: a full disk
    ends the run as a failed publish does.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spool")
        self._room = Semaphore(MAX_WAITING)
        self._error: Exception | None = None

    def keep(self, request_id: str, key: str, fetch: Callable[[], StageOutput]) -> None:
        """Fetch latents and write them. At most MAX_WAITING wait for the disk; with more, these are not kept."""
        if not self._room.acquire(blocking=False):
            return

        def write() -> None:
            try:
                latents = fetch()
            except Exception:
                return  # gone with the node they were on, which the batch's own loop sees, too
            finally:
                self._room.release()
            assert isinstance(latents, Latents), latents
            self._spool.keep(request_id, key, latents)

        self._enqueue(write)

    def drop(self, request_id: str) -> None:
        self._enqueue(lambda: self._spool.drop(request_id))

    def close(self) -> None:
        """Wait for what was asked for. Raises what could not be done."""
        self._thread.shutdown(wait=True)
        if self._error is not None:
            raise self._error

    def _enqueue(self, action: Callable[[], None]) -> None:
        if self._error is not None:
            raise self._error
        self._thread.submit(self._run, action)

    def _run(self, action: Callable[[], None]) -> None:
        if self._error is None:
            try:
                with output_errors():
                    action()
            except Exception as error:
                self._error = error
