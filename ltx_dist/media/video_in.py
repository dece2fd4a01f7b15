"""Reads videos for conditions: their properties, and their frames as RGB images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import PIL.Image
from av.container import InputContainer
from av.error import FFmpegError
from av.video.reformatter import Colorspace, VideoReformatter
from av.video.stream import VideoStream

from ltx_dist.media.images import MAX_PIXELS

SWSCALE_FLAGS = 0x4 | 0x2000 | 0x4000 | 0x40000 | 0x80000
"""SWS_BICUBIC, FULL_CHR_H_INT, FULL_CHR_H_INP, ACCURATE_RND and BITEXACT of libswscale/swscale.h: the same pixels on
every CPU."""

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,ogg,flv,asf,gif"
"""FFmpeg reads other formats, too: images, which are not videos, and playlists, which open any other file."""

HD_HEIGHT = 720
"""A video that does not declare its colour matrix is taken as BT.709 from this height on, and as BT.601 below it, as
players do."""

_MATRICES = {
    1: Colorspace.ITU709, 4: Colorspace.FCC, 5: Colorspace.ITU601, 6: Colorspace.ITU601, 7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020, 10: Colorspace.BT2020,
}  # fmt: skip
"""libswscale's matrices by the code points that a file declares (ITU-T H.273, table 4)."""


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """Properties of a video.

    width, height: of its first frame as shown, upright. num_frames: decoded, at most as many as requested.
    frame_rate: average frames per second; None if the file does not say.
    """

    width: int
    height: int
    num_frames: int
    frame_rate: float | None


def inspect_video(path: Path, max_frames: int, label: str | None = None) -> VideoFacts:
    """Properties of a video after decoding its first `max_frames`; headers do not show that a file is truncated.

    Raises ValueError if it is not a video, is damaged within these frames, or has frames above images.MAX_PIXELS.
    """
    size, count = (0, 0), 0
    with _opened(path, label or str(path)) as (container, stream):
        rate = stream.average_rate
        for frame in _decoded(container, stream, label or str(path)):
            if not count:
                size = (frame.height, frame.width) if frame.rotation % 180 else (frame.width, frame.height)
            count += 1
            if count == max_frames:
                break
    if not count:
        raise ValueError(f"{label or path}: has no frames; save it again")
    return VideoFacts(*size, count, float(rate) if rate else None)


def read_frames(path: Path, start: int, num_frames: int, label: str | None = None) -> Iterator[PIL.Image.Image]:
    """`num_frames` frames of the video from frame `start` (0 is the first) on, upright and in RGB, one by one.

    Raises ValueError if there are fewer, or if they cannot be decoded.
    """
    label = label or str(path)
    reformatter, given = VideoReformatter(), 0
    with _opened(path, label) as (container, stream):
        for index, frame in enumerate(_decoded(container, stream, label)):
            if index >= start:
                yield _picture(frame, reformatter)
                given += 1
            if given == num_frames:
                return
    raise ValueError(f"{label}: has {given} frames from frame {start} on, not {num_frames}")


@contextmanager
def _opened(path: Path, label: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    try:
        container = av.open(str(path), "r", options={"format_whitelist": FORMATS})
    except (FFmpegError, OSError, ValueError) as error:
        raise ValueError(f"{label}: not a video ({error}); use mp4, mov, webm or mkv") from None
    with container:
        if not container.streams.video:
            raise ValueError(f"{label}: has no video in it; use mp4, mov, webm or mkv")
        stream = container.streams.video[0]
        # An unknown codec has no context at all, whatever PyAV's types say.
        if stream.codec_context is None:
            raise ValueError(f"{label}: unknown codec; save it as H.264")
        if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
            raise ValueError(
                f"{label}: frames have more than {MAX_PIXELS // 1_000_000} million pixels; scale them down"
            )
        stream.codec_context.options = {"err_detect": "explode"}  # otherwise a damaged frame is concealed
        yield container, stream


def _decoded(container: InputContainer, stream: VideoStream, label: str) -> Iterator[av.VideoFrame]:
    try:
        yield from container.decode(stream)
    except (FFmpegError, OSError, ValueError, MemoryError) as error:
        raise ValueError(f"{label}: damaged or truncated ({error}); save it again") from None


def _picture(frame: av.VideoFrame, reformatter: VideoReformatter) -> PIL.Image.Image:
    assumed = Colorspace.ITU709 if frame.height >= HD_HEIGHT else Colorspace.ITU601
    matrix = _MATRICES.get(int(frame.colorspace), assumed)
    rgb = reformatter.reformat(frame, format="rgb24", src_colorspace=matrix, interpolation=SWSCALE_FLAGS).to_ndarray()
    # `rotation` is in degrees counterclockwise; phones write quarter turns.
    return PIL.Image.fromarray(np.ascontiguousarray(np.rot90(rgb, round(frame.rotation / 90) % 4)))
