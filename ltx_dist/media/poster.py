"""A clip's poster: a small image that is shown until it plays."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

MAX_WIDTH, QUALITY = 320, 80


def make_poster(frame: np.ndarray) -> bytes:
    """WebP of a frame of (height, width, 3) uint8 RGB, at most MAX_WIDTH pixels wide; equal frames give equal bytes."""
    picture = Image.fromarray(frame)
    if picture.width > MAX_WIDTH:
        size = MAX_WIDTH, max(1, round(picture.height * MAX_WIDTH / picture.width))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=QUALITY)
    return file.getvalue()
