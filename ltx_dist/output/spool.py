"""Stage outputs on disk, so that a run that was killed goes on at the stage it was in, not at the first one."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ltx_dist.output.files import output_errors, write_atomically
from ltx_dist.types import Conditioning, Latents, Stage, StageOutput

SPOOLED: dict[Stage, type[Conditioning] | type[Latents]] = {Stage.ENCODE_TEXT: Conditioning, Stage.DENOISE: Latents}


class Spool:
    """A folder of safetensors files, `NAME.STAGE.safetensors`, each with the key of what it was made from.

    Files are read back only under the same key, so a changed prompt or checkpoint never meets an old output. To stay
    within `limit_bytes`, files of requests that are not in `batch` go first, the oldest first; what still has no room
    is not written: the batch goes on, and a rerun repeats that stage.
    """

    def __init__(self, folder: Path, limit_bytes: int, batch: Collection[str] = ()) -> None:
        self._folder = folder
        self._limit = limit_bytes
        folder.mkdir(parents=True, exist_ok=True)
        by_age = sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
        self._used = sum(path.stat().st_size for path in by_age)
        self._strangers = [path for path in by_age if path.name.rsplit(".", 2)[0] not in batch]

    def keep(self, request_id: str, stage: Stage, key: str, output: StageOutput) -> None:
        """Write an output, durable on return. May raise OSError."""
        assert isinstance(output, SPOOLED[stage]), output
        tensors, texts = {}, {"key": key}
        for field in fields(output):
            value = getattr(output, field.name)
            if isinstance(value, torch.Tensor):
                tensors[field.name] = value.contiguous()
            elif value is not None:
                texts[field.name] = value
        data = save(tensors, texts)
        path = self._path(request_id, stage)
        self._remove(path)
        while self._used + len(data) > self._limit and self._strangers:
            self._remove(self._strangers.pop(0))
        if self._used + len(data) <= self._limit:
            write_atomically(path, data)
            self._used += len(data)

    def holds(self, request_id: str, stage: Stage, key: str) -> bool:
        """Whether `load` would find this output; reads no tensor."""
        try:
            with safe_open(self._path(request_id, stage), framework="pt") as file:
                return (file.metadata() or {}).get("key") == key
        except (OSError, SafetensorError):
            return False

    def load(self, request_id: str, stage: Stage) -> StageOutput:
        """The output that `holds` found, on the CPU."""
        with safe_open(self._path(request_id, stage), framework="pt") as file:
            values = {**file.metadata(), **{name: file.get_tensor(name) for name in file.keys()}}  # noqa: SIM118
        return SPOOLED[stage](**{field.name: values.get(field.name) for field in fields(SPOOLED[stage])})

    def drop(self, request_id: str, stages: tuple[Stage, ...] = tuple(SPOOLED)) -> None:
        """Remove a request's files."""
        for stage in stages:
            self._remove(self._path(request_id, stage))

    def _remove(self, path: Path) -> None:
        if path.exists():
            self._used -= path.stat().st_size
            path.unlink()

    def _path(self, request_id: str, stage: Stage) -> Path:
        return self._folder / f"{request_id}.{stage}.safetensors"


class SpoolWriter:
    """Writes to a spool in a thread of its own, in order, so that the loop of the batch never waits for the disk.

    After the first error nothing more is written, and the next call raises it, an OSError as OutputError: a full disk
    ends the run as a failed publish does.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spool")
        self._error: Exception | None = None

    def keep(self, request_id: str, stage: Stage, key: str, fetch: Callable[[], StageOutput]) -> None:
        """Fetch an output and write it; the one before it is not needed any more then."""

        def write() -> None:
            self._spool.keep(request_id, stage, key, fetch())
            if stage is Stage.DENOISE:
                self._spool.drop(request_id, (Stage.ENCODE_TEXT,))

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
