"""encode_video, read_video and check_video on small moving pictures."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from ltx_dist.media.mp4 import check_video, encode_video, exact_rate, read_video
from ltx_dist.pipeline.payloads import EncodedVideo
from ltx_dist.pipeline.storage import Mp4Settings

HEIGHT, WIDTH, NUM_FRAMES = 64, 96, 17


def moving_square(num_frames: int = NUM_FRAMES) -> Iterator[np.ndarray]:
    """A red square on a blue-green gradient; every frame differs from the one before."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    for t in range(num_frames):
        frame = np.stack([np.full_like(x, 60), x * 255 // WIDTH, y * 255 // HEIGHT], -1).astype(np.uint8)
        frame[16:40, 8 + 2 * t : 32 + 2 * t] = (230, 30, 40)
        yield frame


def encode(frames: Iterator[np.ndarray], num_frames: int = NUM_FRAMES, **changes: object) -> EncodedVideo:
    settings = {"height": HEIGHT, "width": WIDTH, "frame_rate": 24.0, "output": Mp4Settings(), "metadata": {}}
    return encode_video(frames, num_frames=num_frames, **(settings | changes))  # type: ignore[arg-type]


def psnr(decoded: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Decibels by frame, of uint8 (T, H, W, 3)."""
    error = decoded.astype(float) - expected
    return 10 * np.log10(255**2 / np.mean(error**2, axis=(1, 2, 3)))


def test_equal_frames_give_equal_files() -> None:
    assert len({encode(moving_square()).mp4_sha256 for _ in range(20)}) == 1


@pytest.mark.fault(22)
@pytest.mark.skipif(sys.platform != "linux", reason="files in memory are a thing of Linux")
def test_a_temporary_folder_that_is_full_or_gone_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    there = encode(moving_square()).mp4_sha256
    monkeypatch.setattr(tempfile, "tempdir", "/dev/full")  # where every file fails
    open_files = len(os.listdir("/proc/self/fd"))
    assert encode(moving_square()).mp4_sha256 == there
    assert len(os.listdir("/proc/self/fd")) == open_files


def test_where_memory_has_no_files_the_temporary_folder_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = encode(moving_square()).mp4_sha256
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert encode(moving_square()).mp4_sha256 == there and not list(tmp_path.iterdir())


def test_the_digests_are_of_the_frames_and_of_the_file() -> None:
    video = encode(moving_square())
    assert video.frames_sha256 == hashlib.sha256(np.stack(list(moving_square())).tobytes()).hexdigest()
    assert video.mp4_sha256 == hashlib.sha256(video.mp4).hexdigest()


def test_frames_come_back_in_order_and_close() -> None:
    decoded, frame_rate, _ = read_video(encode(moving_square()).mp4)
    expected = np.stack(list(moving_square()))
    assert decoded.shape == expected.shape and decoded.dtype == np.uint8 and frame_rate == 24.0
    assert psnr(decoded, expected).min() > 30  # the square's hard edges lose chroma to 4:2:0
    assert psnr(decoded[:, 44:], expected[:, 44:]).min() > 44  # the gradient below it does not
    assert psnr(decoded[1:], expected[:-1]).max() < 28  # a frame that is late would show


@pytest.mark.parametrize("colour", [(230, 30, 40), (20, 200, 60), (30, 40, 220), (255, 255, 255), (0, 0, 0)])
def test_flat_colours_survive(colour: tuple[int, int, int]) -> None:
    frames = iter([np.full((HEIGHT, WIDTH, 3), colour, dtype=np.uint8)] * 9)
    decoded, _, _ = read_video(encode(frames, 9).mp4)
    assert np.abs(decoded.astype(int) - colour).max() <= 3


def test_the_file_says_bt709_and_starts_with_its_index(tmp_path) -> None:
    mp4 = encode(moving_square()).mp4
    (tmp_path / "clip.mp4").write_bytes(mp4)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        codec = container.streams.video[0].codec_context
        tags = (codec.color_primaries, codec.color_trc, codec.colorspace, codec.color_range)
        assert (*tags, codec.pix_fmt) == (1, 1, 1, 1, "yuv420p")
        assert "creation_time" not in container.metadata
    assert mp4.index(b"moov") < mp4.index(b"mdat")


def test_metadata_survives() -> None:
    metadata = {"prompt": 'a "red" circle; été, 圆\n= #\\', "seed": "7", "request_id": "003-a-red-circle"}
    assert read_video(encode(moving_square(), metadata=metadata).mp4)[2] == metadata


@pytest.mark.parametrize("frame_rate", [24.0, 25.0, 30.0, 30000 / 1001, 29.97, 23.976, 12.5, 8.0])
def test_frame_rate_is_kept(frame_rate: float) -> None:
    mp4 = encode(moving_square(9), 9, frame_rate=frame_rate).mp4
    check_video(mp4, 9, HEIGHT, WIDTH, frame_rate)
    assert read_video(mp4)[1] == float(exact_rate(frame_rate))


def test_one_frame_is_a_clip() -> None:
    check_video(encode(moving_square(1), 1).mp4, 1, HEIGHT, WIDTH, 24.0)


def test_frames_are_taken_one_by_one() -> None:
    alive: list[int] = []

    class Counted(np.ndarray):
        def __del__(self) -> None:
            alive[-1] -= 1

    def frames() -> Iterator[np.ndarray]:
        alive.append(0)
        for frame in moving_square():
            counted = frame.view(Counted)
            alive[-1] += 1
            yield counted
            del counted
            assert alive[-1] <= 1  # at most the one that the encoder's loop variable still holds

    encode(frames())
    assert alive == [0]


@pytest.mark.parametrize("change", [{"height": 32}, {"width": 128}, {"num_frames": 16}, {"num_frames": 18}])
def test_wrong_frames_are_our_own_mistake(change: dict[str, int]) -> None:
    with pytest.raises(AssertionError):
        encode(moving_square(), **{"num_frames": NUM_FRAMES, **change})


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ((18, HEIGHT, WIDTH, 24.0), "17 frames instead of 18"),
        ((NUM_FRAMES, 32, WIDTH, 24.0), "size 64x96 instead of 32x96"),
        ((NUM_FRAMES, HEIGHT, WIDTH, 25.0), "24 frames per second instead of 25"),
    ],
)
def test_check_says_what_differs(expected: tuple[int, int, int, float], message: str) -> None:
    mp4 = encode(moving_square()).mp4
    check_video(mp4, NUM_FRAMES, HEIGHT, WIDTH, 24.0)
    with pytest.raises(ValueError, match=message):
        check_video(mp4, *expected)


@pytest.mark.parametrize("kept", [0, 10, 500, 0.5, 0.95])
def test_a_cut_file_is_noticed(kept: float) -> None:
    mp4 = encode(moving_square(), output=Mp4Settings(crf=1)).mp4
    cut = mp4[: int(kept * len(mp4)) if isinstance(kept, float) else kept]
    with pytest.raises(ValueError, match="the mp4"):
        check_video(cut, NUM_FRAMES, HEIGHT, WIDTH, 24.0)


def test_settings_change_the_file() -> None:
    outputs = [Mp4Settings(), Mp4Settings(crf=30), Mp4Settings(preset="veryfast"), Mp4Settings(threads=1)]
    assert len({encode(moving_square(), output=output).mp4_sha256 for output in outputs}) == len(outputs)
