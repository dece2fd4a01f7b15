"""Frames to mp4 bytes and back, in-process through PyAV. Equal frames and settings give equal bytes."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from ltx_dist.media.file_formats import READERS, formats_of
from ltx_dist.media.images import make_poster
from ltx_dist.media.seal import sealed
from ltx_dist.media.sound import read_sound, sound_problems, until_the_end
from ltx_dist.media.video_file import SWSCALE_FLAGS, VideoFile
from ltx_dist.pipeline.payloads import EncodedVideo, OtherFile, Sound, SoundFacts
from ltx_dist.pipeline.storage import Mp4Settings

MAX_DENOMINATOR = 1001
"""Largest denominator of a frame rate: broadcast rates are k / 1001 (30000/1001 is "29.97"); none has a larger one."""


FORMAT_TAGS = frozenset({"major_brand", "minor_version", "compatible_brands"})
"""Tags that FFmpeg shows for every mp4, because of its container."""


def exact_rate(frame_rate: float) -> Fraction:
    """Frames per second as the fraction that a container stores: 24.0 -> 24, 29.97002997 -> 30000/1001."""
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
    """An H.264 mp4 (yuv420p, BT.709, limited range, index first) of the frames, and the files that `output.also` asks
    for beside it.

    frames: uint8 RGB, (height, width, 3), consumed one by one; none is kept. metadata: tags of the file by name, for
    people and programs. facts: for our own use, stored in the mp4's seal with the digests of the frames and the sound.
    """
    digest, count, rate, poster = hashlib.sha256(), 0, exact_rate(frame_rate), None
    audible = _audible(sound, num_frames, rate, output)
    formats = formats_of(output)
    with ExitStack() as opened:
        files = [
            opened.enter_context(VideoFile(format_, height, width, rate, metadata, audible)) for format_ in formats
        ]
        for frame in frames:
            assert frame.shape == (height, width, 3) and frame.dtype == np.uint8, (frame.shape, frame.dtype)
            frame = np.ascontiguousarray(frame)
            digest.update(frame.data)
            if count == num_frames // 2:
                poster = make_poster(frame)
            for file in files:
                file.write(frame)
            count += 1
        assert count == num_frames, f"{count} frames of {num_frames}"
        mp4, *others = (file.close() for file in files)
    also = {format_.ending: OtherFile.of(content) for format_, content in zip(formats[1:], others, strict=True)}
    heard = None if sound is None or audible is None else _facts(sound)
    mp4 = sealed(mp4, {**(facts or {}), **_sealed_facts(digest.hexdigest(), heard, also)})
    mp4_sha256 = hashlib.sha256(mp4).hexdigest()
    return EncodedVideo(mp4, num_frames, height, width, digest.hexdigest(), mp4_sha256, heard, poster, also)


def _audible(sound: Sound | None, num_frames: int, rate: Fraction, output: Mp4Settings) -> Sound | None:
    if sound is None or output.audio == "none":
        return None
    return until_the_end(sound, num_frames, rate) if output.pad_audio else sound


def _sealed_facts(frames_sha256: str, heard: SoundFacts | None, also: Mapping[str, OtherFile]) -> dict[str, str]:
    """What the mp4's seal says about the clip, so that its sidecar can be rebuilt."""
    facts = {"frames_sha256": frames_sha256}
    if heard is not None:
        facts |= {name: str(value) for name, value in asdict(heard).items()}
    return facts | ({"also": json.dumps({ending: file.record for ending, file in also.items()})} if also else {})


def _facts(sound: Sound) -> SoundFacts:
    channels, samples = sound.waveform.shape
    return SoundFacts(sound.sha256(), sound.sampling_rate, channels, samples)


def read_video(video: str | Path | bytes) -> tuple[np.ndarray, float, dict[str, str]]:
    """All frames as uint8 RGB, (num_frames, height, width, 3), the frame rate, and the tags given to `encode_video`."""
    reformatter = VideoReformatter()
    with _open(video) as container:
        stream = container.streams.video[0]
        frames = [_to_rgb(picture, reformatter) for picture in container.decode(stream)]
        tags = {name: text for name, text in container.metadata.items() if name not in FORMAT_TAGS}
        assert stream.average_rate is not None, "an mp4 has a rate"
        return np.stack(frames), float(stream.average_rate), tags


def read_frames(video: str | Path | bytes, ending: str = ".mp4") -> Iterator[np.ndarray]:
    """The frames one by one, each (height, width, 3), uint8 RGB. Raises ValueError if the file cannot be read.

    ending: the file's extension, which tells its format.
    """
    reformatter = VideoReformatter()
    try:
        with _open(video, READERS[ending]) as container:
            for picture in container.decode(container.streams.video[0]):
                yield _to_rgb(picture, reformatter)
    except (FFmpegError, IndexError) as error:
        raise ValueError(f"the {ending[1:]} cannot be read: {error}") from error


def check_video(
    mp4: bytes | BinaryIO,
    num_frames: int,
    height: int,
    width: int,
    frame_rate: float,
    sound: SoundFacts | None = None,
) -> None:
    """Decode the file completely. Raises ValueError if it cannot be read or differs from these properties."""
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


def check_other_file(content: bytes, ending: str, num_frames: int, height: int, width: int) -> None:
    """Decode one of the files beside an mp4 to its end. Raises ValueError saying what is wrong with it."""
    try:
        with _open(content, READERS[ending]) as container:
            sizes = [(picture.height, picture.width) for picture in container.decode(container.streams.video[0])]
    except (FFmpegError, IndexError) as error:
        raise ValueError(f"the {ending[1:]} cannot be read: {error}") from error
    if sizes != [(height, width)] * num_frames:
        found = " and ".join(f"{h}x{w}" for h, w in sorted(set(sizes)))
        raise ValueError(
            f"the {ending[1:]} has {len(sizes)} frames of {found} instead of {num_frames} of {height}x{width}"
        )


def _open(video: str | Path | bytes | BinaryIO, reader: str = "mp4") -> InputContainer:
    """Open a video with this demuxer only: FFmpeg would guess the format, and some formats open other files."""
    source = io.BytesIO(video) if isinstance(video, bytes) else str(video) if isinstance(video, str | Path) else video
    return av.open(source, "r", format=reader)


def _to_rgb(picture: av.VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
    if picture.format.is_rgb:
        return reformatter.reformat(picture, format="rgb24").to_ndarray()
    return reformatter.reformat(
        picture,
        format="rgb24",
        src_colorspace=Colorspace.ITU709,
        dst_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=SWSCALE_FLAGS,
    ).to_ndarray()
