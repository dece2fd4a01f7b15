"""Reads and writes files below a URL, with retries: S3, Google Cloud Storage and the other stores of fsspec."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from fsspec.core import url_to_fs
from tenacity import Retrying, retry_if_not_exception_type, stop_after_attempt, wait_exponential_jitter

from ltx_dist.messages import first_line
from ltx_dist.store.output_errors import OutputError

REQUIREMENTS = {"s3": "s3fs>=2025.3", "gs": "gcsfs>=2025.3", "gcs": "gcsfs>=2025.3"}
"""The packages that read these URLs: the extras `s3` and `gcs`."""

RETRYING = Retrying(
    stop=stop_after_attempt(6),
    wait=wait_exponential_jitter(multiplier=0.5, max=20),
    retry=retry_if_not_exception_type((PermissionError, FileNotFoundError)),
    reraise=True,
)
"""Retries last half a minute, which covers passing trouble; wrong credentials or a missing bucket do not pass."""

WHEN = ("LastModified", "mtime", "updated", "last_modified", "created")
"""Keys under which stores report the time of a file's last change: S3, local and GCS, GCS, Azure, memory."""

ETAGS = ("md5Hash", "ETag", "etag")
"""Keys under which stores report a digest of a file's content: GCS, S3, Azure. It is compared only with an earlier one
of the same store: in some stores it is the MD5, in others it may change although the content does not."""

Entry = Mapping[str, Any]
"""A store's description of a file: its `size` in bytes, and what `written_at` and `etag_of` look up."""


class RemoteFolder:
    """The files below a URL. Stores raise errors of many classes: a method that does not turn them into OutputError
    itself is called inside `errors`."""

    def __init__(self, url: str, retrying: Retrying = RETRYING) -> None:
        self.url = url
        self._retrying = retrying
        self._file_system, self._root = _open(url)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn whatever a store raises in the block into an OutputError that names the URL."""
        try:
            yield
        except Exception as error:
            raise OutputError(f"{self.url}: {said(error)}") from error

    def entries(self) -> dict[str, Entry]:
        """Files by name, including those in subfolders, except outputs of other runs; empty if nothing is there yet."""
        self._file_system.invalidate_cache()
        try:
            entries = self._retrying.copy()(self._file_system.find, self._root, detail=True)
        except FileNotFoundError:
            return {}
        root = f"{self._root.strip('/')}/"
        files = {path.lstrip("/").removeprefix(root): entry for path, entry in entries.items()}
        others = tuple(name.removesuffix("run.json") for name in files if name.endswith("/run.json"))
        # A store takes any name. One with `..` would be copied to a place outside of the folder.
        inside = {name: entry for name, entry in files.items() if ".." not in name.split("/")}
        return {name: entry for name, entry in inside.items() if not name.startswith((".", *others))}

    def entry(self, name: str) -> Entry:
        path = f"{self._root}/{name}"
        self._file_system.invalidate_cache(path.rpartition("/")[0])
        return self._retrying.copy()(self._file_system.info, path)

    def read(self, name: str) -> bytes:
        return self._retrying.copy()(self._file_system.cat_file, f"{self._root}/{name}")

    def write(self, name: str, content: bytes) -> None:
        path = f"{self._root}/{name}"
        try:
            self._retrying.copy()(self._file_system.pipe_file, path, content)
        except FileNotFoundError:  # of the stores that have folders
            self._file_system.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._retrying.copy()(self._file_system.pipe_file, path, content)

    def remove(self, name: str) -> None:
        self._file_system.rm_file(f"{self._root}/{name}")

    def sha256(self, name: str) -> str:
        """Hex digest of a file, read in pieces. Raises OutputError."""
        digest = hashlib.sha256()
        with self.errors(), self._file_system.open(f"{self._root}/{name}", "rb") as file:
            for block in iter(partial(file.read, 1 << 20), b""):
                digest.update(block)
        return digest.hexdigest()


def written_at(entry: Entry) -> Any:
    """The time of the last change, comparable only within one store; None if the store reports none."""
    return next((entry[key] for key in WHEN if entry.get(key) is not None), None)


def etag_of(entry: Entry) -> str | None:
    return next((str(entry[key]) for key in ETAGS if entry.get(key)), None)


def said(error: BaseException) -> str:
    """The class of an error and the first line of its message."""
    return f"{type(error).__name__}: {first_line(str(error))}".rstrip(": ")


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
