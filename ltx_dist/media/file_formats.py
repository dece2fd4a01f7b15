"""The files that frames become: the mp4 of every clip, and those that `output.also` asks for beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from ltx_dist.pipeline.storage import AlsoFormat, Mp4Settings

AudioCodec = Literal["aac", "alac", "flac", "pcm_s24le", "libopus"]
"""Names of FFmpeg's encoders."""


@dataclass(frozen=True, slots=True)
class FileFormat:
    """One kind of file, by FFmpeg's names. Equal frames and settings give equal bytes.

    container: FFmpeg's muxer. reader: its demuxer. options: the encoder's. container_options: the muxer's.
    bits_per_pixel: an estimate of the file's size; noise takes several times that, flat clips a tenth. threads: of the
    encoder. is_rgb: whether frames are stored as RGB, losslessly.
    """

    ending: str
    container: str
    reader: str
    encoder: str
    pixel_format: str
    options: Mapping[str, str]
    audio: AudioCodec
    bits_per_pixel: float
    container_options: Mapping[str, str] = field(default_factory=dict[str, str])
    threads: int = 2
    is_rgb: bool = False


CRF, CRF_STEP = 17, 6
"""x264 makes about one bit per pixel at CRF 17 (a clip of 704x480x121 is 5 MB), and half of it for every six more."""

_ISO = {"movflags": "+faststart+use_metadata_tags"}
"""Muxer options for mp4 and mov: the index at the front, and tags with any name."""


def mp4_format(output: Mp4Settings) -> FileFormat:
    """The mp4 format that the settings ask for."""
    # With mbtree, x264 produces a different file from the same input in almost every run.
    options = {"crf": str(output.crf), "preset": output.preset, "x264-params": "mbtree=0"}
    audio = "aac" if output.audio == "none" else output.audio
    bits = 2.0 ** ((CRF - output.crf) / CRF_STEP)
    return FileFormat(".mp4", "mp4", "mp4", "libx264", "yuv420p", options, audio, bits, _ISO, output.threads)


ALSO: Mapping[AlsoFormat, FileFormat] = MappingProxyType(
    {
        # Profile 3 is HQ: 220 Mb/s at 1920x1080x30. Players and editors look for Apple's name in the frames.
        "prores": FileFormat(
            ".mov", "mov", "mov", "prores_ks", "yuv422p10le",
            {"profile": "3", "vendor": "apl0"}, "pcm_s24le", bits_per_pixel=4.0, container_options=_ISO,
        ),
        # Version 3, with a checksum for each slice of a frame.
        "ffv1": FileFormat(
            ".mkv", "matroska", "matroska", "ffv1", "bgr0",
            {"level": "3", "slices": "4", "slicecrc": "1", "g": "1"}, "flac", bits_per_pixel=10.0, is_rgb=True,
        ),
        "av1": FileFormat(
            ".webm", "webm", "matroska", "libsvtav1", "yuv420p10le",
            {"crf": "24", "preset": "8"}, "libopus", bits_per_pixel=0.4,
        ),
    }
)  # fmt: skip
"""By FFmpeg's name of the codec."""


def formats_of(output: Mp4Settings) -> list[FileFormat]:
    """The files that the settings ask for, the mp4 first."""
    return [mp4_format(output), *(ALSO[name] for name in output.also)]


ALSO_ENDINGS = tuple(one.ending for one in ALSO.values())

LOSSLESS = tuple(one.ending for one in ALSO.values() if one.is_rgb)

READERS = {".mp4": "mp4"} | {one.ending: one.reader for one in ALSO.values()}
