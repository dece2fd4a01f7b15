"""Estimates, before a batch starts, whether its output fits on the disk."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from ltx_dist.media.file_formats import formats_of
from ltx_dist.messages import size
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import Mp4Settings

FLOAT32 = 4


def clip_bytes(request: RenderRequest, output: Mp4Settings) -> float:
    """Estimated bytes of a clip's mp4 and of the files beside it."""
    pixels = request.height * request.width * request.num_frames
    return pixels * sum(one.bits_per_pixel for one in formats_of(output)) / 8


def latents_bytes(request: RenderRequest, channels: int, spatial_ratio: int, temporal_ratio: int) -> int:
    """Bytes of a clip's latents in the spool, not counting a few kilobytes of metadata."""
    frames = (request.num_frames - 1) // temporal_ratio + 1
    return FLOAT32 * channels * frames * (request.height // spatial_ratio) * (request.width // spatial_ratio)


def shortage(folder: Path, mp4s: float, spool: float) -> str | None:
    """A warning if this many bytes do not fit on the disk of `folder`, otherwise None. Raises OSError."""
    free = shutil.disk_usage(folder).free
    if mp4s + spool <= free:
        return None
    return (
        f"the output may not fit: an estimated {size(mp4s)} of clips and {size(spool)} of latents, and {size(free)} "
        f"free in {folder}; if it fills up, the run ends with exit code 74, and a rerun resumes once there is space"
    )


def spool_peak(sizes: Sequence[int], at_a_time: int, keeps_all: bool, limit: float) -> float:
    """Maximum bytes of latents on disk at a time: of all clips if they are kept, otherwise of the `at_a_time` largest,
    which may be between denoising and publishing together."""
    largest = sorted(sizes, reverse=True)[: None if keeps_all else at_a_time]
    return min(float(sum(largest)), limit)
