"""Frames to mp4 bytes and back, in-process through PyAV. Equal frames and settings give equal bytes."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream

from ltx_dist.media.images import make_poster
from ltx_dist.media.seal import sealed
from ltx_dist.media.sound import SoundTrack, read_sound, sound_problems, until_the_end
from ltx_dist.pipeline.payloads import EncodedVideo, Sound, SoundFacts
from ltx_dist.pipeline.storage import Mp4Settings

BT709 = 1
"""Code point of BT.709 for primaries, transfer and matrix alike (ITU-T H.273, tables 2 to 4)."""

SWSCALE_FLAGS = 0x4 | 0x2000 | 0x4000 | 0x40000 | 0x80000
"""SWS_BICUBIC, FULL_CHR_H_INT, FULL_CHR_H_INP, ACCURATE_RND and BITEXACT of libswscale/swscale.h.

The defaults round by what the CPU's vector unit finds fastest: 1 to 1.5 levels too dark, and different by machine.
"""

MAX_DENOMINATOR = 1001
"""Largest denominator of a frame rate: broadcast rates are k / 1001 (30000/1001 is "29.97"); none has a larger one."""


FORMAT_TAGS = frozenset({"major_brand", "minor_version", "compatible_brands"})
"""Tags that FFmpeg shows for every mp4, because of its container."""


def exact_rate(frame_rate: float) -> Fraction:
    """Frames a second as the fraction a container stores: 24.0 -> 24, 29.97002997 -> 30000/1001."""
    return Fraction(frame_rate).limit_denominator(MAX_DENOMINATOR)


def encode_video(
    frames: Iterable[np.ndarray],
    *,
    height: int,
    width: int,
    num_frames: int,
    frame_rate: float,
    output: Mp4Settings,
    metadata: dict[str, str],
    facts: Mapping[str, str] | None = None,
    sound: Sound | None = None,
) -> EncodedVideo:
    """An H.264 mp4 (yuv420p, BT.709, limited range, index first) of uint8 RGB frames of shape (height, width, 3).

    Takes the frames one by one and keeps none. `metadata`: tags of the file by name, for people and programs; `facts`,
    and the digests of the frames and of the sound, go into its seal, for us.
    """
    digest, count, rate, poster = hashlib.sha256(), 0, exact_rate(frame_rate), None
    with _scratch_file() as path:
        options = {"movflags": "+faststart+use_metadata_tags", "fflags": "+bitexact"}
        with av.open(path, "w", format="mp4", options=options) as container:
            container.metadata.update(metadata)
            stream = container.add_stream("libx264", rate=rate, options=_x264_options(output))
            _describe(stream, height, width, output.threads)
            track = _sound_track(container, sound, num_frames, rate, output)
            reformatter = VideoReformatter()
            for frame in frames:
                assert frame.shape == (height, width, 3) and frame.dtype == np.uint8, (frame.shape, frame.dtype)
                frame = np.ascontiguousarray(frame)
                digest.update(frame.data)
                if count == num_frames // 2:
                    poster = make_poster(frame)
                picture = _to_yuv(frame, reformatter)
                picture.pts, picture.time_base = count, 1 / rate
                container.mux(stream.encode(picture))
                count += 1
                if track is not None:
                    track.write(count / rate)
            container.mux(stream.encode(None))
            if track is not None:
                track.close()
        heard = None if sound is None or track is None else _facts(sound)
        sealing = {**(facts or {}), "frames_sha256": digest.hexdigest()}
        if heard is not None:
            sealing |= {name: str(value) for name, value in asdict(heard).items()}
        mp4 = sealed(Path(path).read_bytes(), sealing)
    assert count == num_frames, f"{count} frames of {num_frames}"
    mp4_sha256 = hashlib.sha256(mp4).hexdigest()
    return EncodedVideo(mp4, num_frames, height, width, digest.hexdigest(), mp4_sha256, heard, poster)


@contextmanager
def _scratch_file() -> Iterator[str]:
    """The name of a temporary file to write to.

    Moving the index to the front reopens the file by its name, so a buffer does not do. A file in memory does, and then
    a TMPDIR that is full or missing is no reason for clips to fail.
    """
    if sys.platform == "linux" and Path("/proc/self/fd").is_dir():
        descriptor = os.memfd_create("ltx-dist-clip.mp4")
        try:
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    with tempfile.TemporaryDirectory(prefix="ltx-dist-") as folder:
        yield str(Path(folder) / "clip.mp4")


def _sound_track(
    container: OutputContainer, sound: Sound | None, num_frames: int, rate: Fraction, output: Mp4Settings
) -> SoundTrack | None:
    if sound is None or output.audio == "none":
        return None
    return SoundTrack(container, until_the_end(sound, num_frames, rate) if output.pad_audio else sound, output.audio)


def _facts(sound: Sound) -> SoundFacts:
    channels, samples = sound.waveform.shape
    return SoundFacts(sound.sha256(), sound.sampling_rate, channels, samples)


def read_video(video: str | Path | bytes) -> tuple[np.ndarray, float, dict[str, str]]:
    """All frames as (T, H, W, 3) uint8 RGB, frames a second, and the tags `encode_video` was given."""
    reformatter = VideoReformatter()
    with _open(video) as container:
        stream = container.streams.video[0]
        frames = [_to_rgb(picture, reformatter) for picture in container.decode(stream)]
        tags = {name: text for name, text in container.metadata.items() if name not in FORMAT_TAGS}
        assert stream.average_rate is not None, "an mp4 has a rate"
        return np.stack(frames), float(stream.average_rate), tags


def read_frames(video: str | Path | bytes) -> Iterator[np.ndarray]:
    """The frames one by one, as `read_video` has them. Raises ValueError for what cannot be read as an mp4."""
    reformatter = VideoReformatter()
    try:
        with _open(video) as container:
            for picture in container.decode(container.streams.video[0]):
                yield _to_rgb(picture, reformatter)
    except (FFmpegError, IndexError) as error:
        raise ValueError(f"the mp4 cannot be read: {error}") from error


def check_video(
    mp4: bytes | BinaryIO,
    num_frames: int,
    height: int,
    width: int,
    frame_rate: float,
    sound: SoundFacts | None = None,
) -> None:
    """Decode the file completely. Raises ValueError if it cannot be read or is not as requested."""
    try:
        with _open(mp4) as container:
            stream = container.streams.video[0]
            stream.codec_context.options = {"err_detect": "explode"}  # otherwise a damaged frame is concealed
            sizes = [(picture.height, picture.width) for picture in container.decode(stream)]
            rate = stream.average_rate
        heard = None
        if sound is not None:
            with _open(mp4) as container:
                heard = read_sound(container)
    except (FFmpegError, IndexError) as error:
        raise ValueError(f"the mp4 cannot be read: {error}") from error
    wrong = [f"size {h}x{w} instead of {height}x{width}" for h, w in sorted(set(sizes) - {(height, width)})]
    if len(sizes) != num_frames:
        wrong.append(f"{len(sizes)} frames instead of {num_frames}")
    if rate != exact_rate(frame_rate):
        wrong.append(f"{rate} frames per second instead of {exact_rate(frame_rate)}")
    if sound is not None:
        wrong += sound_problems(heard, sound, num_frames / exact_rate(frame_rate))
    if wrong:
        raise ValueError("the mp4 has " + ", ".join(wrong))


def _open(video: str | Path | bytes | BinaryIO) -> InputContainer:
    """As mp4 and nothing else: FFmpeg would find out by itself what a file is, and some kinds open others."""
    source = io.BytesIO(video) if isinstance(video, bytes) else str(video) if isinstance(video, str | Path) else video
    return av.open(source, "r", format="mp4")


def _x264_options(output: Mp4Settings) -> dict[str, str]:
    # With mbtree, x264 gives another file in almost every run of the same input.
    return {"crf": str(output.crf), "preset": output.preset, "x264-params": "mbtree=0", "flags": "+bitexact"}


def _describe(stream: VideoStream, height: int, width: int, threads: int) -> None:
    stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
    codec = stream.codec_context
    codec.thread_count, codec.thread_type = threads, "FRAME"  # PyAV's default, slices, makes larger files
    codec.color_primaries, codec.color_trc, codec.colorspace = BT709, BT709, BT709
    codec.color_range = ColorRange.MPEG


def _to_yuv(frame: np.ndarray, reformatter: VideoReformatter) -> av.VideoFrame:
    return reformatter.reformat(
        av.VideoFrame.from_ndarray(frame, format="rgb24"),
        format="yuv420p",
        src_colorspace=Colorspace.ITU709,
        dst_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
        interpolation=SWSCALE_FLAGS,
    )


def _to_rgb(picture: av.VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
    return reformatter.reformat(
        picture,
        format="rgb24",
        src_colorspace=Colorspace.ITU709,
        dst_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=SWSCALE_FLAGS,
    ).to_ndarray()
