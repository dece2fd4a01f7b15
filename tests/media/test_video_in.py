"""Videos are read frame by frame, upright and in their own colours, or refused."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest

from ltx_dist.media.video_in import inspect_video, read_frames

COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (30, 200, 200)]


def save(path: Path, frames: int = 5, rate: Fraction | int = 10, size: tuple[int, int] = (64, 48)) -> Path:
    """A video whose frames have one colour each, except for a white corner at the top left."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "0"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv444p"
        for index in range(frames):
            pixels = np.full((size[1], size[0], 3), COLOURS[index % len(COLOURS)], np.uint8)
            pixels[:16, :16] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def turned(path: Path) -> Path:
    """The same file with the display matrix of a phone that was held upright: turn by 90 degrees clockwise."""
    content = path.read_bytes()
    identity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    clockwise = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    track_header = content.index(b"tkhd")
    at = content.index(identity, track_header)
    path.write_bytes(content[:at] + clockwise + content[at + len(clockwise) :])
    return path


def refused(path: Path) -> str:
    with pytest.raises(ValueError) as caught:
        inspect_video(path, 100)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


def test_frames_have_their_order_and_colours(tmp_path: Path):
    path = save(tmp_path / "a.mp4")
    frames = [np.asarray(frame) for frame in read_frames(path, 1, 3)]
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 3
    for frame, colour in zip(frames, COLOURS[1:4], strict=True):
        assert np.abs(frame[30, 40].astype(int) - colour).max() <= 3
        assert frame[4, 4].min() > 250


def test_what_is_known_of_a_video(tmp_path: Path):
    facts = inspect_video(save(tmp_path / "a.mp4", rate=Fraction(30000, 1001)), 100)
    assert (facts.width, facts.height, facts.num_frames) == (64, 48, 5)
    assert facts.frame_rate == pytest.approx(29.97, abs=0.01)
    assert inspect_video(tmp_path / "a.mp4", 2).num_frames == 2


def test_a_phones_rotation_is_applied(tmp_path: Path):
    path = turned(save(tmp_path / "a.mp4"))
    facts = inspect_video(path, 9)
    frame = np.asarray(next(iter(read_frames(path, 0, 1))))
    assert (facts.width, facts.height) == (48, 64) and frame.shape == (64, 48, 3)
    assert frame[4, -5].min() > 250, "the corner at the top left is at the top right"
    assert frame[4, 4].min() < 100


def test_high_definition_is_bt709_and_less_is_bt601(tmp_path: Path):
    """A YUV file that names no matrix, as x264 writes it: the same values stand for other colours."""
    frames = {}
    for height in (576, 720):
        frames[height] = np.asarray(
            next(iter(read_frames(save(tmp_path / f"{height}.mp4", 1, 10, (64, height)), 0, 1)))
        )
    assert np.abs(frames[576][300, 40].astype(int) - COLOURS[0]).max() <= 3
    assert np.abs(frames[720][300, 40].astype(int) - COLOURS[0]).max() > 5


def test_fewer_frames_than_asked_for_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="has 2 frames from frame 3 on, not 4"):
        list(read_frames(save(tmp_path / "a.mp4"), 3, 4))


def test_pictures_and_lists_of_files_are_no_videos(tmp_path: Path):
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert refused(tmp_path / "a.png").startswith("not a video")
    other = save(tmp_path / "b.mp4")
    (tmp_path / "a.ffconcat").write_text(f"ffconcat version 1.0\nfile '{other}'\n")
    (tmp_path / "a.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{other}\n#EXT-X-ENDLIST\n")
    for name in ("a.ffconcat", "a.m3u8"):
        assert refused(tmp_path / name).startswith("not a video")


def test_what_is_no_video_is_refused(tmp_path: Path):
    (tmp_path / "a.mp4").write_bytes(b"no video at all")
    assert refused(tmp_path / "a.mp4").startswith("not a video")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert refused(tmp_path / "sound.mp4") == "has no video in it; use mp4, mov, webm or mkv"


def test_a_video_that_is_cut_off_is_refused(tmp_path: Path):
    whole = save(tmp_path / "a.mkv", frames=30, size=(320, 240)).read_bytes()
    for part in (0.001, 0.5):
        (tmp_path / "a.mkv").write_bytes(whole[: int(len(whole) * part)])
        try:
            assert inspect_video(tmp_path / "a.mkv", 100).num_frames < 30  # intact up to a frame: a shorter video
        except ValueError as error:
            assert str(tmp_path) in str(error)
    mp4 = save(tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(mp4[: len(mp4) // 2])  # the index is at the end
    assert refused(tmp_path / "a.mp4").startswith("not a video")


def test_random_damage_is_refused_or_read(tmp_path: Path):
    whole = save(tmp_path / "a.mp4").read_bytes()
    random = np.random.default_rng(2)
    for _ in range(80):
        content = bytearray(whole)
        for position in random.integers(0, len(content), 3):
            content[position] = random.integers(0, 256)
        (tmp_path / "b.mp4").write_bytes(content)
        try:
            inspect_video(tmp_path / "b.mp4", 20)
        except ValueError as error:
            assert str(tmp_path) in str(error)
