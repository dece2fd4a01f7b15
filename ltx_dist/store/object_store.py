"""Uploads the clips of an output that is a URL: they are published into a local folder first.

The mp4 first, then its sidecar, so that a sidecar over there has its mp4, as in a folder. What has arrived is removed
here, except the sidecars. A clip counts as present without reading its mp4 if that has the size and the ETag of
which the sidecar speaks. Where there is no ETag, it must not have been written after the sidecar; where a store tells
neither, or the ETag is another, the mp4 is read and hashed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs
from tenacity import Retrying, retry_if_not_exception_type, stop_after_attempt, wait_exponential_jitter

from ltx_dist.media.file_formats import ALSO_ENDINGS
from ltx_dist.pipeline.work import Completion, RenderResult
from ltx_dist.store.files import clear_folder, flat, make_folder, remove_file, to_json, write_atomically, write_mark
from ltx_dist.store.found import MAX_SIDECAR_BYTES, read_found_json
from ltx_dist.store.other_files import recorded_also
from ltx_dist.store.output_errors import OutputError
from ltx_dist.store.publisher import RESERVED_NAMES

REQUIREMENTS = {"s3": "s3fs>=2025.3", "gs": "gcsfs>=2025.3", "gcs": "gcsfs>=2025.3"}
"""The packages that read these URLs: the extras `s3` and `gcs`."""

UPLOADS = 4
"""Simultaneous uploads: one stream carries some 50 MB/s, and clips have a few MB."""

RETRYING = Retrying(
    stop=stop_after_attempt(6),
    wait=wait_exponential_jitter(multiplier=0.5, max=20),
    retry=retry_if_not_exception_type((PermissionError, FileNotFoundError)),
    reraise=True,
)
"""Half a minute of trouble passes; wrong credentials and a bucket that is not there do not."""

RUN_FILES = ("run.json", "metadata.jsonl", "trace.json", "index.html")

WHEN = ("LastModified", "mtime", "updated", "last_modified", "created")
"""Under which of these a store says when a file was written: S3, local and GCS, GCS, Azure, memory."""


ETAGS = ("md5Hash", "ETag", "etag")
"""Under which of these a store says which content a file has: GCS, S3, Azure. Only compared with itself: it is the MD5
in some stores, and changes without the content in others."""


class Mirror:
    """An observer of the batch that uploads each clip that ended, in a separate thread.

    Errors of a store have many classes; all become OutputError here. `folder` is locked by the caller.
    """

    def __init__(self, url: str, folder: Path, retrying: Retrying = RETRYING) -> None:
        self.url = url
        self._folder, self._retrying = folder, retrying
        self._uploaded = folder / ".ltx-dist" / "uploaded"
        self._file_system, self._root = _open(url)
        self._listing: dict[str, Mapping[str, Any]] = {}
        self._pool = ThreadPoolExecutor(UPLOADS, thread_name_prefix="upload")
        self._uploads: dict[str, Future[None]] = {}
        self._run_upload: Future[None] | None = None

    def pull(self) -> None:
        """Learn what is there, and fetch sidecars, run.json and the table: what is there counts, not what is staged."""
        with self._errors():
            self._listing = self._list()
            wanted = [name for name in self._listing if _is_sidecar(name) or name in ("run.json", "metadata.jsonl")]
            for name, content in zip(wanted, self._pool.map(self._fetch, wanted), strict=True):
                make_folder((self._folder / name).parent)
                write_atomically(self._folder / name, content)
        make_folder(self._uploaded)
        clear_folder(self._uploaded)
        for name in self._listing:
            if name.endswith((".mp4", ".webp", *ALSO_ENDINGS)):
                write_mark(self._uploaded / flat(name))

    def holds(self, name: str, render_key: str) -> bool:
        """Whether the clip over there was made by exactly this `render_key` and its mp4 is the one of its sidecar."""
        try:
            sidecar = read_found_json(self._folder / f"{name}.json", MAX_SIDECAR_BYTES)
            mp4, known = self._listing[f"{name}.mp4"], self._listing[f"{name}.json"]
            if (sidecar["status"], sidecar["render_key"]) != ("done", render_key):
                return False
            if "mp4_bytes" in sidecar and mp4["size"] != sidecar["mp4_bytes"]:
                return False
            for ending, file in recorded_also(sidecar).items():
                if self._listing[f"{name}{ending}"]["size"] != file["bytes"]:
                    return False
            if "mp4_bytes" in sidecar and "mp4_etag" in sidecar:
                etag = _etag(mp4)
                if etag is not None and etag == sidecar["mp4_etag"]:
                    return True
                return self._sha256(f"{name}.mp4") == sidecar["mp4_sha256"]
            written, described = _when(mp4), _when(known)
            if "mp4_bytes" in sidecar and written is not None and described is not None:
                return written <= described
            return self._sha256(f"{name}.mp4") == sidecar["mp4_sha256"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):  # not there, or not ours: it is rendered again
            return False

    def stage_ended(self, completion: Completion) -> None:
        pass

    def clip_ended(self, result: RenderResult) -> None:
        self.upload(result.request.request_id)

    def upload(self, name: str) -> None:
        """Start to send a published clip, or the sidecar of a failed one."""
        self._uploads[name] = self._pool.submit(self._send_clip, name)

    def upload_run(self) -> None:
        """The run's own files, at once. Raises OutputError."""
        with self._errors():
            for name in RUN_FILES:
                if (self._folder / name).exists():
                    self._send(name)

    def upload_run_soon(self) -> None:
        """The same in a thread, unless the last time is still going on; errors are left to the next time."""
        if self._run_upload is None or self._run_upload.done():
            self._run_upload = self._pool.submit(self.upload_run)

    def fetch_clips(self, folder: Path, endings: tuple[str, ...]) -> None:
        """Every sidecar, and every file of a clip with one of these endings, into `folder`. Raises OutputError."""
        with self._errors():
            wanted = [name for name in self._list() if _is_sidecar(name) or name.endswith(endings)]
            for name, content in zip(wanted, self._pool.map(self._fetch, wanted), strict=True):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)

    def finish(self) -> None:
        """Wait for all uploads. Raises OutputError when clips did not arrive; they stay staged for the next run."""
        errors = [(name, upload.exception()) for name, upload in self._uploads.items()]
        failed = [(name, error) for name, error in errors if error is not None]
        if failed:
            name, error = failed[0]
            raise OutputError(
                f"{self.url}: clips not uploaded: {len(failed)}, {name} because of {_said(error)}; kept in "
                f"{self._folder}, rerun the same command to upload them"
            ) from error

    def close(self) -> None:
        """Uploads that have not begun are left to the next run."""
        self._pool.shutdown(cancel_futures=True)

    def _send_clip(self, name: str) -> None:
        mp4, sidecar, poster = (self._folder / f"{name}{ending}" for ending in (".mp4", ".json", ".webp"))
        if poster.exists():
            self._send(f"{name}.webp")
            self._is_over_there(f"{name}.webp")
        others = [ending for ending in ALSO_ENDINGS if (self._folder / f"{name}{ending}").exists()]
        for ending in others:
            self._send(f"{name}{ending}")
        if mp4.exists():
            self._send(f"{name}.mp4")
            if (etag := _etag(self._info(f"{name}.mp4"))) is not None:
                recorded = read_found_json(sidecar, MAX_SIDECAR_BYTES)
                write_atomically(sidecar, to_json(recorded | {"mp4_etag": etag}))
        self._send(f"{name}.json")
        for ending in others:
            self._is_over_there(f"{name}{ending}")
        if mp4.exists():
            self._is_over_there(f"{name}.mp4")

    def _is_over_there(self, name: str) -> None:
        """Note it and remove the file here."""
        write_mark(self._uploaded / flat(name))
        remove_file(self._folder / name)

    def _send(self, name: str) -> None:
        content = (self._folder / name).read_bytes()
        path = f"{self._root}/{name}"
        try:
            self._retrying.copy()(self._file_system.pipe_file, path, content)
        except FileNotFoundError:  # of the stores that have folders
            self._file_system.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._retrying.copy()(self._file_system.pipe_file, path, content)

    def _info(self, name: str) -> Mapping[str, Any]:
        path = f"{self._root}/{name}"
        self._file_system.invalidate_cache(path.rpartition("/")[0])
        return self._retrying.copy()(self._file_system.info, path)

    def _fetch(self, name: str) -> bytes:
        return self._retrying.copy()(self._file_system.cat_file, f"{self._root}/{name}")

    def _list(self) -> dict[str, Mapping[str, Any]]:
        """Files by name, those of folders too, but not those of other outputs in them; none if nothing is there yet."""
        self._file_system.invalidate_cache()
        try:
            entries = self._retrying.copy()(self._file_system.find, self._root, detail=True)
        except FileNotFoundError:
            return {}
        root = f"{self._root.strip('/')}/"
        files = {path.lstrip("/").removeprefix(root): entry for path, entry in entries.items()}
        others = tuple(name.removesuffix("run.json") for name in files if name.endswith("/run.json"))
        return {name: entry for name, entry in files.items() if not name.startswith((".", *others))}

    def _sha256(self, name: str) -> str:
        digest = hashlib.sha256()
        with self._errors(), self._file_system.open(f"{self._root}/{name}", "rb") as file:
            for block in iter(partial(file.read, 1 << 20), b""):
                digest.update(block)
        return digest.hexdigest()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise OutputError(f"{self.url}: {_said(error)}") from error


def is_uploaded(folder: Path, name: str) -> bool:
    """Whether a staging folder's output has the file; False for every folder that stages for none."""
    return (folder / ".ltx-dist" / "uploaded" / flat(name)).exists()


def _open(url: str) -> tuple[Any, str]:
    protocol = url.partition("://")[0]
    try:
        file_system, root = url_to_fs(url)
    except ImportError as error:
        wanted = REQUIREMENTS.get(protocol)
        remedy = f"pip install '{wanted}'" if wanted else str(error)
        raise ValueError(f"{url}: what reads {protocol}:// is not installed; {remedy}") from None
    except ValueError:
        raise ValueError(
            f"{url}: {protocol}:// is not known; use a folder, s3://, gs:// or another of fsspec's"
        ) from None
    return file_system, str(root).rstrip("/")


def _is_sidecar(name: str) -> bool:
    return name.endswith(".json") and name.rpartition("/")[2].removesuffix(".json") not in RESERVED_NAMES


def _when(entry: Mapping[str, Any]) -> Any:
    """Comparable with that of another file of the same store; None where it does not tell."""
    return next((entry[key] for key in WHEN if entry.get(key) is not None), None)


def _etag(entry: Mapping[str, Any]) -> str | None:
    return next((str(entry[key]) for key in ETAGS if entry.get(key)), None)


def _said(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}".rstrip(": ")
