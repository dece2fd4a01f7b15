"""Making mp4s beside the device: if frames stop coming for any reason, the thread that waits for them ends."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from ltx_dist.pipeline.payloads import DecodedClip, EncodedVideo
from ltx_dist.worker.host_stages import HostStages


def encode(clip: DecodedClip) -> EncodedVideo:
    return EncodedVideo(b"".join(frame.tobytes() for frame in clip.frames), 1, 2, 2, "", "")


def frames_until(error: BaseException | None) -> Iterator[np.ndarray]:
    yield np.ones((2, 2), np.uint8)
    if error is not None:
        raise error


def test_frames_become_the_mp4():
    stages = HostStages(1)
    stages.begin("a", "mp4", DecodedClip(frames_until(None), "digest"), encode)
    assert stages.result("a", "mp4").mp4 == b"\1" * 4


@pytest.mark.parametrize("error", [RuntimeError("no memory"), KeyboardInterrupt()])
def test_what_ends_the_frames_ends_their_thread(error: BaseException):
    stages = HostStages(1)
    with pytest.raises(type(error)):
        stages.begin("a", "mp4", DecodedClip(frames_until(error), "digest"), encode)
    stages._threads.shutdown(wait=True)  # would never return if the thread still waited for a frame


def test_an_error_of_the_device_is_not_raised_in_the_thread_as_well():
    """Its traceback, which holds what is on the device, could not be let go of before the thread has ended."""
    stages, caught = HostStages(1), list[BaseException]()

    def encode_in_vain(clip: DecodedClip) -> EncodedVideo:
        try:
            return encode(clip)
        except BaseException as error:
            caught.append(error)
            raise

    error = RuntimeError("no memory")
    with pytest.raises(RuntimeError, match="no memory"):
        stages.begin("a", "mp4", DecodedClip(frames_until(error), "digest"), encode_in_vain)
    stages._threads.shutdown(wait=True)
    assert len(caught) == 1 and caught[0] is not error
