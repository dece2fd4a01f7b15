"""Publishes clips into the output folder: first `NAME.webp` (the poster) and the files of `output.also`, then
`NAME.mp4`, and last `NAME.json` (the sidecar).

The mp4, with the render key in its seal, is authoritative: a sidecar that is lost, or older than its mp4, is rebuilt
from it. Only one Publisher at a time writes to a folder; workers never do.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from ltx_dist.media.mp4 import check_other_file, check_video
from ltx_dist.media.seal import claimed, read_seal
from ltx_dist.pipeline.payloads import EncodedVideo
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.work import RenderResult
from ltx_dist.store.clip_names import RESERVED_NAMES, with_ending
from ltx_dist.store.files import (
    INTERNAL,
    HeldFolder,
    clear_folder,
    make_folder,
    remove_file,
    to_json,
    write_atomically,
    write_once,
)
from ltx_dist.store.found import ForeignFileError, open_found, sha256_of, size_of
from ltx_dist.store.other_files import are_there, recorded_also, sealed_also
from ltx_dist.store.sidecar import OF_ROW, Sidecar, as_read, of_row, read_sidecar, sidecar_of, sidecar_of_seal


class Publisher:
    """The one writer of an output folder. It creates the folder, and removes what a crash left in `.ltx-dist/tmp`.

    checkpoint: the checkpoint's name and digests, as JSON for the sidecars. notes: further content of sidecars, by clip
    name. posters: whether clips get one. held: `folder` as locked by this run; nothing is published into another folder
    that takes its place. has_written: whether this run has written a sidecar.
    Every method may raise OSError.
    """

    def __init__(
        self,
        folder: Path,
        checkpoint: Mapping[str, Any],
        held: HeldFolder | None = None,
        notes: Mapping[str, Mapping[str, Any]] | None = None,
        posters: bool = False,
    ) -> None:
        self._folder, self._held, self._posters = folder, held, posters
        self._checkpoint, self._notes = dict(checkpoint), notes or {}
        self._scratch = folder / INTERNAL / "tmp"
        self._again: set[str] = set()
        self.has_written = False
        make_folder(self._scratch, held)
        clear_folder(self._scratch, held)

    def publish(self, result: RenderResult, render_key: str) -> bool:
        """Make `result` visible and durable: the mp4 and its sidecar, or only the sidecar of a failed clip.

        Returns False if the clip has already been published: the first of two attempts wins, and the later one changes
        nothing. Raises ValueError, with nothing written, if the mp4 is not the requested video.
        """
        request, video = result.request, result.video
        assert (result.status == "done") == (video is not None), result.status
        _assert_safe(request.request_id)
        if self.is_published(request, render_key):
            return False
        if video is None and request.request_id in self._again:
            return True  # the existing clip stays, and so does its sidecar
        if video is not None:
            _check(request, video)
            self._make_folder(request)
            self._put_poster(request, video.poster)
            self._put_others(request, video)
            is_first = request.request_id not in self._again
            if not write_once(
                self._mp4(request),
                video.mp4,
                self._scratch,
                stays=lambda: is_first and self._seal(request, render_key) is not None,
                held=self._held,
            ):
                self.is_published(request, render_key)  # another driver's clip, whose sidecar may be missing yet
                return False
        else:
            self._make_folder(request)
        self._record(request, sidecar_of(result, render_key, self._checkpoint))
        self._again.discard(request.request_id)
        return True

    def _make_folder(self, request: RenderRequest) -> None:
        """Create the subfolder that the clip's name asks for."""
        if "/" in request.request_id:
            make_folder(self._mp4(request).parent, self._held)

    def _put_poster(self, request: RenderRequest, poster: bytes | None) -> None:
        """Write or remove the poster; called before the mp4 is written, so that no earlier clip's poster stays."""
        if self._posters and poster is not None:
            write_atomically(self._poster(request), poster, self._scratch, self._held)
        else:
            remove_file(self._poster(request), self._held)

    def _put_others(self, request: RenderRequest, video: EncodedVideo) -> None:
        """Write the files beside the mp4, and remove those of the existing clip that this one does not have."""
        for ending in recorded_also(read_sidecar(self._json(request))):
            if ending not in video.also:
                remove_file(self._path(request, ending), self._held)
        for ending, file in video.also.items():
            write_atomically(self._path(request, ending), file.content, self._scratch, self._held)

    def check_names(self, requests: Sequence[RenderRequest], also: Sequence[str] = ()) -> None:
        """Raise OSError if something is in the way of a clip's files or folder, before anything is rendered.

        also: endings of the files beside the mp4.
        """
        for request in requests:
            for path in (self._path(request, ending) for ending in (".mp4", ".json", ".webp", *also)):
                if path.is_dir() and not path.is_symlink():
                    raise IsADirectoryError(errno.EISDIR, "a folder where a file of a clip should be", str(path))
        for name in {parent for request in requests for parent in PurePosixPath(request.request_id).parents}:
            path = self._folder / name
            if name != PurePosixPath() and (path.is_symlink() or (path.exists() and not path.is_dir())):
                raise NotADirectoryError(errno.ENOTDIR, "a link or a file where a folder of clips should be", str(path))
            if name != PurePosixPath() and ((path / INTERNAL).is_dir() or (path / "run.json").is_file()):
                raise FileExistsError(errno.EEXIST, "the output folder of another run", str(path))

    def make_again(self, request: RenderRequest) -> None:
        """Have the next clip published for this request replace the existing one, even if that has the right key."""
        self._again.add(request.request_id)

    def recorded(self, request: RenderRequest) -> Sidecar:
        """The clip's sidecar, for the methods below."""
        return read_sidecar(self._json(request))

    def key_of(self, request: RenderRequest, planned: str, recorded: Sidecar) -> str | None:
        """The render key in the existing clip's sidecar, or else in its seal. It is not checked against the mp4.

        None if there is no key, or if the sidecar has another request, whose key cannot be this one's.
        planned: the expected key; if the sidecar has it, its request need not be compared.
        """
        if isinstance(key := recorded.get("render_key"), str):
            return key if key == planned or recorded.get("request") == as_read(asdict(request)) else None
        try:
            with open_found(self._mp4(request)) as file:
                return claimed(file).get("render_key")
        except (FileNotFoundError, ForeignFileError):
            return None

    def is_published(self, request: RenderRequest, render_key: str, recorded: Sidecar | None = None) -> bool:
        """Whether the clip was made with exactly this `render_key`, and its mp4 is the one that was published.

        If so, the notes in its sidecar are updated. Without a sidecar with this key, the mp4's seal decides; if it is
        intact, the sidecar is rebuilt. recorded: the sidecar, which is read if not given.
        """
        if request.request_id in self._again:
            return False
        recorded = self.recorded(request) if recorded is None else recorded
        if _is_recorded(self._path(request), recorded, render_key):
            self.update_notes(request, recorded)
            return True
        facts = self._seal(request, render_key)
        if facts is None or not are_there(sealed_also(facts), self._path(request)):
            return False
        self._record(request, sidecar_of_seal(request, facts, self._checkpoint))
        return True

    def update_notes(self, request: RenderRequest, recorded: Sidecar) -> bool:
        """Update the notes in the sidecar of a kept clip. Returns False if they are up to date.

        recorded: the sidecar's content, which must still be that of the file.
        """
        noted = self._notes.get(request.request_id, {})
        if not recorded or of_row(recorded) == as_read(of_row(noted)):
            return False
        others = {key: value for key, value in recorded.items() if key not in OF_ROW}
        self._write_sidecar(request, others | of_row(noted))
        return True

    def _seal(self, request: RenderRequest, render_key: str) -> dict[str, Any] | None:
        """The facts in the mp4's seal if it is intact and has this key, else None. With another key, only the end of
        the mp4 is read."""
        try:
            with open_found(self._mp4(request)) as file:
                if claimed(file).get("render_key") != render_key:
                    return None
                facts = read_seal(file)
                return None if facts is None else facts | {"mp4_sha256": sha256_of(file), "mp4_bytes": size_of(file)}
        except (FileNotFoundError, ForeignFileError):
            return None

    def _path(self, request: RenderRequest, ending: str = "") -> Path:
        return with_ending(self._folder / request.request_id, ending)

    def _mp4(self, request: RenderRequest) -> Path:
        return self._path(request, ".mp4")

    def _json(self, request: RenderRequest) -> Path:
        return self._path(request, ".json")

    def _poster(self, request: RenderRequest) -> Path:
        return self._path(request, ".webp")

    def _record(self, request: RenderRequest, content: dict[str, Any]) -> None:
        self._write_sidecar(request, {**content, **self._notes.get(request.request_id, {})})

    def _write_sidecar(self, request: RenderRequest, content: Mapping[str, Any]) -> None:
        write_atomically(self._json(request), to_json(content), self._scratch, self._held)
        self.has_written = True


def _is_recorded(clip: Path, recorded: Sidecar, render_key: str) -> bool:
    if (recorded.get("status"), recorded.get("render_key")) != ("done", render_key):
        return False  # before reading the mp4: clips with other settings need not be hashed
    if not are_there(recorded_also(recorded), clip):
        return False
    try:
        with open_found(with_ending(clip, ".mp4")) as file:
            is_size = recorded.get("mp4_bytes", size_of(file)) == size_of(file)  # before it is read, too
            return is_size and recorded.get("mp4_sha256") == sha256_of(file)
    except (FileNotFoundError, ForeignFileError):
        return False


def _assert_safe(name: str) -> None:
    parts = PurePosixPath(name).parts
    assert "/".join(parts) == name and ".." not in parts and parts[-1] not in RESERVED_NAMES, name


def _check(request: RenderRequest, video: EncodedVideo) -> None:
    if hashlib.sha256(video.mp4).hexdigest() != video.mp4_sha256:
        raise ValueError("the mp4 was damaged on its way from the worker")
    check_video(video.mp4, request.num_frames, request.height, request.width, request.frame_rate, video.sound)
    for ending, file in video.also.items():
        if hashlib.sha256(file.content).hexdigest() != file.sha256:
            raise ValueError(f"the {ending[1:]} was damaged on its way from the worker")
        check_other_file(file.content, ending, request.num_frames, request.height, request.width)
