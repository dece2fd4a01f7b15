"""mp4s beside the device: whatever ends the frames ends the thread that waits for them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from ltx_dist.pipeline.payloads import EncodedVideo
from ltx_dist.worker.video_encoders import Frames, VideoEncoders


def encode(frames: Frames) -> EncodedVideo:
    return EncodedVideo(b"".join(frame.tobytes() for frame in frames), 1, 2, 2, "", "")


def frames_until(error: BaseException | None) -> Iterator[np.ndarray]:
    yield np.ones((2, 2), np.uint8)
    if error is not None:
        raise error


def test_frames_become_the_mp4():
    videos = VideoEncoders(1)
    videos.feed("a", frames_until(None), encode)
    assert videos.result("a").mp4 == b"\1" * 4


@pytest.mark.parametrize("error", [RuntimeError("no memory"), KeyboardInterrupt()])
def test_what_ends_the_frames_ends_their_thread(error: BaseException):
    videos = VideoEncoders(1)
    with pytest.raises(type(error)):
        videos.feed("a", frames_until(error), encode)
    videos._threads.shutdown(wait=True)  # would never return if the thread still waited for a frame
