"""A clip's middle frame, read from its mp4."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np

from ltx_dist.media.mp4 import read_frames


def middle_frame(mp4: Path, num_frames: int) -> np.ndarray:
    """The middle frame, uint8 RGB, (height, width, 3). Raises ValueError if the mp4 cannot be read, or has too few
    frames."""
    frame = next(islice(read_frames(mp4), num_frames // 2, None), None)
    if frame is None:
        raise ValueError(f"the mp4 has fewer frames than {num_frames}")
    return frame
