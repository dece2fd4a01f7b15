"""The small picture beside a clip."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from ltx_dist.media.images import make_poster
from ltx_dist.media.mp4 import encode_video
from ltx_dist.pipeline.storage import Mp4Settings


def opened(poster: bytes | None) -> Image.Image:
    assert poster is not None
    return Image.open(io.BytesIO(poster))


def test_a_wide_frame_is_made_small_and_keeps_its_shape():
    frame = np.zeros((480, 704, 3), np.uint8)
    frame[:, 352:] = 255
    poster = opened(make_poster(frame))
    assert (poster.format, poster.size) == ("WEBP", (320, 218))
    pixels = np.asarray(poster.convert("L"))
    assert pixels[:, :150].max() < 20 and pixels[:, 170:].min() > 235


def test_a_small_frame_keeps_its_size():
    assert opened(make_poster(np.zeros((32, 64, 3), np.uint8))).size == (64, 32)


def test_a_clip_has_its_middle_frame():
    frames = [np.full((32, 64, 3), level, np.uint8) for level in (0, 60, 128, 200, 255)]
    video = encode_video(
        frames, height=32, width=64, num_frames=5, frame_rate=8.0, output=Mp4Settings(), metadata={}
    )  # fmt: skip
    assert abs(int(np.asarray(opened(video.poster).convert("L")).mean()) - 128) <= 2
    assert video.poster == make_poster(frames[2])
