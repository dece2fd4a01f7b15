"""Uploads the clips of an output that is a URL: they are published into a local staging folder first.

The sidecar is uploaded after its mp4, so that a sidecar in the store always has its mp4, as in a folder. Uploaded files
are removed from the staging folder, except sidecars. A clip counts as present, without reading its mp4, if the mp4 has
the size and the ETag that the sidecar records. If a store has no ETags, the mp4 must not be newer than the sidecar.
Otherwise the mp4 is read and hashed.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from tenacity import Retrying

from ltx_dist.media.file_formats import ALSO_ENDINGS
from ltx_dist.pipeline.work import Completion, RenderResult
from ltx_dist.store.clip_names import RESERVED_NAMES, with_ending
from ltx_dist.store.files import clear_folder, flat, make_folder, remove_file, to_json, write_atomically, write_mark
from ltx_dist.store.found import MAX_SIDECAR_BYTES, read_found_json
from ltx_dist.store.other_files import recorded_also
from ltx_dist.store.output_errors import OutputError
from ltx_dist.store.remote_folder import RETRYING, Entry, RemoteFolder, etag_of, said, written_at
from ltx_dist.store.sidecar import Sidecar

UPLOADS = 4
"""Simultaneous uploads: one stream carries some 50 MB/s, and clips have a few MB."""

BESIDE = (".webp", *ALSO_ENDINGS)
"""Endings of the files that a clip may have beside its mp4 and its sidecar."""

RUN_FILES = ("run.json", "metadata.jsonl", "trace.json", "index.html")


class Mirror:
    """An observer of the batch that uploads each clip that has ended, in separate threads.

    Its methods raise OutputError for whatever goes wrong at the store. `folder` is locked by the caller.
    """

    def __init__(self, url: str, folder: Path, retrying: Retrying = RETRYING) -> None:
        self.url = url
        self._folder, self._remote = folder, RemoteFolder(url, retrying)
        self._uploaded = folder / ".ltx-dist" / "uploaded"
        self._listing: dict[str, Entry] = {}
        self._pool = ThreadPoolExecutor(UPLOADS, thread_name_prefix="upload")
        self._uploads: dict[str, Future[None]] = {}
        self._run_upload: Future[None] | None = None

    def pull(self) -> None:
        """List the store, and fetch its sidecars, run.json and table, which replace what is staged."""
        with self._remote.errors():
            self._listing = self._remote.entries()
            wanted = [name for name in self._listing if _is_sidecar(name) or name in ("run.json", "metadata.jsonl")]
            for name, content in zip(wanted, self._pool.map(self._remote.read, wanted), strict=True):
                make_folder((self._folder / name).parent)
                write_atomically(self._folder / name, content)
        make_folder(self._uploaded)
        clear_folder(self._uploaded)
        for name in self._listing:
            if name.endswith((".mp4", *BESIDE)):
                write_mark(self._uploaded / flat(name))

    def pull_output(self) -> None:
        """The same where an output must be. Raises ValueError if there is neither a run's record nor a clip."""
        self.pull()
        there = self._listing
        if not any(name == "run.json" or (_is_sidecar(name) and f"{name[:-5]}.mp4" in there) for name in there):
            raise ValueError(
                f"{self.url}: not an output of ltx-dist; check the URL; `ltx-dist render ... -o {self.url}` makes one"
            )

    def holds(self, name: str, render_key: str, sidecar: Sidecar) -> bool:
        """Whether the clip in the store was made with exactly this `render_key`, and its mp4 matches its sidecar."""
        try:
            mp4, known = self._listing[f"{name}.mp4"], self._listing[f"{name}.json"]
            if (sidecar["status"], sidecar["render_key"]) != ("done", render_key):
                return False
            if "mp4_bytes" in sidecar and mp4["size"] != sidecar["mp4_bytes"]:
                return False
            for ending, file in recorded_also(sidecar).items():
                if self._listing[f"{name}{ending}"]["size"] != file["bytes"]:
                    return False
            if "mp4_bytes" in sidecar and "mp4_etag" in sidecar:
                etag = etag_of(mp4)
                if etag is not None and etag == sidecar["mp4_etag"]:
                    return True
                return self._remote.sha256(f"{name}.mp4") == sidecar["mp4_sha256"]
            written, described = written_at(mp4), written_at(known)
            if "mp4_bytes" in sidecar and written is not None and described is not None:
                return written <= described
            return self._remote.sha256(f"{name}.mp4") == sidecar["mp4_sha256"]
        except (KeyError, TypeError):  # not there, or not ours: it is rendered again
            return False

    def stage_ended(self, completion: Completion) -> None:
        pass

    def clip_ended(self, result: RenderResult) -> None:
        self.upload(result.request.request_id)

    def upload(self, name: str) -> None:
        """Begin to upload a published clip, or the sidecar of a failed one."""
        self._uploads[name] = self._pool.submit(self._send_clip, name)

    def upload_run(self) -> None:
        """Upload the run's own files now. Raises OutputError."""
        with self._remote.errors():
            for name in RUN_FILES:
                if (self._folder / name).exists():
                    self._send(name)

    def upload_run_soon(self) -> None:
        """The same in a thread, unless the last such upload is still running. Errors are left to the next upload."""
        if self._run_upload is None or self._run_upload.done():
            self._run_upload = self._pool.submit(self.upload_run)

    def fetch_clips(self, folder: Path, endings: tuple[str, ...]) -> None:
        """Download every sidecar, and clips' files with these endings, into `folder`. Raises OutputError."""
        with self._remote.errors():
            wanted = [name for name in self._remote.entries() if _is_sidecar(name) or name.endswith(endings)]
            for name, content in zip(wanted, self._pool.map(self._remote.read, wanted), strict=True):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)

    def finish(self) -> None:
        """Wait for all uploads. Raises OutputError when clips did not arrive; they stay staged for the next run."""
        errors = [(name, upload.exception()) for name, upload in self._uploads.items()]
        failed = [(name, error) for name, error in errors if error is not None]
        if failed:
            name, error = failed[0]
            raise OutputError(
                f"{self.url}: clips not uploaded: {len(failed)}, {name} because of {said(error)}; kept in "
                f"{self._folder}, rerun the same command to upload them"
            ) from error

    def close(self) -> None:
        """Stop uploading; clips whose upload has not begun are left to the next run."""
        self._pool.shutdown(cancel_futures=True)

    def _send_clip(self, name: str) -> None:
        clip = self._folder / name
        staged = [ending for ending in (*BESIDE, ".mp4") if with_ending(clip, ending).exists()]
        for ending in staged:
            self._send(f"{name}{ending}")
        is_published = ".mp4" in staged
        if is_published and (etag := etag_of(self._remote.entry(f"{name}.mp4"))) is not None:
            sidecar = with_ending(clip, ".json")
            recorded = read_found_json(sidecar, MAX_SIDECAR_BYTES)
            write_atomically(sidecar, to_json(recorded | {"mp4_etag": etag}))
        self._send(f"{name}.json")
        for ending in reversed(staged):  # the mp4 first: while it is staged, files that are not count as removed
            self._is_over_there(f"{name}{ending}")
        for ending in BESIDE if is_published else ():
            if ending not in staged:
                self._remove_there(f"{name}{ending}")

    def _is_over_there(self, name: str) -> None:
        """Note it and remove the file here."""
        write_mark(self._uploaded / flat(name))
        remove_file(self._folder / name)

    def _remove_there(self, name: str) -> None:
        """Remove a file of the clip that was replaced. If it cannot be deleted, only this run's page is without it."""
        if name in self._listing:
            remove_file(self._uploaded / flat(name))
            with suppress(Exception):  # whoever may write to a store may not always delete there
                self._remote.remove(name)

    def _send(self, name: str) -> None:
        self._remote.write(name, (self._folder / name).read_bytes())


def is_uploaded(folder: Path, name: str) -> bool:
    """Whether the file has been uploaded from this staging folder; False for any other folder."""
    return (folder / ".ltx-dist" / "uploaded" / flat(name)).exists()


def _is_sidecar(name: str) -> bool:
    return name.endswith(".json") and name.rpartition("/")[2].removesuffix(".json") not in RESERVED_NAMES
