"""`frames`: a folder per clip with each frame as a PNG, `00000.png` and so on.

If there is a lossless file beside the mp4, they are read from it and are exactly the frames that the VAE made;
otherwise the mp4 is decoded to RGB.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ltx_dist.media.file_formats import LOSSLESS
from ltx_dist.media.mp4 import read_frames
from ltx_dist.report.finished_clips import FinishedClip
from ltx_dist.store.other_files import recorded_also

COMPRESSION = 1
"""zlib's fastest level: level 6 makes files a tenth smaller and takes three times as long."""


def write(clips: Sequence[FinishedClip], place: Path) -> None:
    place.mkdir()
    for clip in clips:
        folder = place / clip.name
        folder.mkdir(parents=True)
        try:
            ending = next((one for one in LOSSLESS if one in recorded_also(clip.sidecar)), ".mp4")
            for number, frame in enumerate(read_frames(clip.file(ending), ending)):
                Image.fromarray(frame).save(folder / f"{number:05d}.png", compress_level=COMPRESSION)
        except ValueError as error:
            raise ValueError(f"{clip.name}: {error}; `ltx-dist verify` says which clips are damaged") from None
