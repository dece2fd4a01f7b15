"""Writes one file of frames and sound, in memory, through PyAV."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream

from ltx_dist.media.file_formats import FileFormat
from ltx_dist.media.sound import SoundTrack
from ltx_dist.pipeline.payloads import Sound

BT709 = 1
"""Code point of BT.709 for primaries, transfer and matrix alike (ITU-T H.273, tables 2 to 4)."""

SWSCALE_FLAGS = 0x4 | 0x2000 | 0x4000 | 0x40000 | 0x80000
"""SWS_BICUBIC, FULL_CHR_H_INT, FULL_CHR_H_INP, ACCURATE_RND and BITEXACT of libswscale/swscale.h.

The defaults round by what the CPU's vector unit finds fastest: 1 to 1.5 levels too dark, and different by machine.
"""

THREADS = Path("/proc/self/task")


class VideoFile:
    """A file that is being written from frames given one by one; none is kept."""

    def __init__(
        self,
        format_: FileFormat,
        height: int,
        width: int,
        rate: Fraction,
        metadata: Mapping[str, str],
        sound: Sound | None,
    ) -> None:
        """rate: frames per second. metadata: tags by name. sound: None for a file without sound."""
        self._format, self._rate, self._count = format_, rate, 0
        self._reformatter = VideoReformatter()
        with ExitStack() as opened:
            self._path = opened.enter_context(_scratch_file(f"clip{format_.ending}"))
            options = {**format_.container_options, "fflags": "+bitexact"}
            self._container: OutputContainer = opened.enter_context(
                av.open(self._path, "w", format=format_.container, options=options)
            )
            self._container.metadata.update(metadata)
            self._stream = _add_stream(self._container, format_, height, width, rate)
            self._track = None if sound is None else SoundTrack(self._container, sound, format_.audio)
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._opened.close()

    def write(self, frame: np.ndarray) -> None:
        """Write the next frame: contiguous uint8 RGB, (height, width, 3)."""
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        picture = self._reformatter.reformat(picture, format=self._format.pixel_format, **_conversion(self._format))
        picture.pts, picture.time_base = self._count, 1 / self._rate
        self._container.mux(self._stream.encode(picture))
        self._count += 1
        if self._track is not None:
            self._track.write(self._count / self._rate)

    def close(self) -> bytes:
        """Finish the file and return its bytes. Nothing can be written afterwards."""
        self._container.mux(self._stream.encode(None))
        if self._track is not None:
            self._track.close()
        self._container.close()
        return Path(self._path).read_bytes()


def _add_stream(
    container: OutputContainer, format_: FileFormat, height: int, width: int, rate: Fraction
) -> VideoStream:
    stream = container.add_stream(format_.encoder, rate=rate, options={**format_.options, "flags": "+bitexact"})
    assert isinstance(stream, VideoStream)
    stream.height, stream.width, stream.pix_fmt = height, width, format_.pixel_format
    codec = stream.codec_context
    codec.thread_count, codec.thread_type = format_.threads, "FRAME"  # PyAV's default, slices, makes larger files
    if not format_.is_rgb:
        codec.color_primaries, codec.color_trc, codec.colorspace = BT709, BT709, BT709
        codec.color_range = ColorRange.MPEG
    with _kept_scheduling_policy():
        codec.open()
    return stream


@contextmanager
def _kept_scheduling_policy() -> Iterator[None]:
    """Give threads that become real-time in this block the calling thread's former scheduling policy at its end.

    If it has the permission, as root has, SVT-AV1 gives its threads and the thread that opens it the policy SCHED_FIFO
    with priority 99, for good. Everything else on their cores then waits, even Ray's heartbeats and sshd, and processes
    that are started later inherit the policy.
    """
    if not (hasattr(os, "sched_setscheduler") and THREADS.is_dir()):
        yield
        return
    before = _real_time_threads()
    policy, priority = os.SCHED_OTHER, os.sched_param(0)
    with suppress(OSError):  # not every sandbox has these calls
        policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for thread in _real_time_threads() - before:
            with suppress(OSError):  # it has ended
                os.sched_setscheduler(thread, policy, priority)


def _real_time_threads() -> set[int]:
    """The ids of this process's threads with the policy SCHED_FIFO."""
    found: set[int] = set()
    for thread in THREADS.iterdir():
        with suppress(OSError):
            if os.sched_getscheduler(int(thread.name)) == os.SCHED_FIFO:
                found.add(int(thread.name))
    return found


def _conversion(format_: FileFormat) -> dict[str, int]:
    """The colour conversion from RGB to what the format stores; none for formats that store RGB."""
    if format_.is_rgb:
        return {}
    return {
        "src_colorspace": Colorspace.ITU709,
        "dst_colorspace": Colorspace.ITU709,
        "src_color_range": ColorRange.JPEG,
        "dst_color_range": ColorRange.MPEG,
        "interpolation": SWSCALE_FLAGS,
    }


@contextmanager
def _scratch_file(name: str) -> Iterator[str]:
    """The name of a temporary file to write to, removed afterwards.

    To move the index to the front, FFmpeg reopens the file by name, so a buffer is not enough. The file is in memory
    where possible: then no clip fails because TMPDIR is full or missing.
    """
    if sys.platform == "linux" and Path("/proc/self/fd").is_dir():
        descriptor = os.memfd_create(f"ltx-dist-{name}")
        try:
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    with tempfile.TemporaryDirectory(prefix="ltx-dist-") as folder:
        yield str(Path(folder) / name)
