"""The files that `output.also` asks for beside an mp4: codecs, losslessness, sound, equal bytes, damage."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from ltx_dist.media.file_formats import ALSO, READERS
from ltx_dist.media.mp4 import check_other_file, encode_video, read_frames
from ltx_dist.media.seal import claimed
from ltx_dist.pipeline.payloads import EncodedVideo, Sound
from ltx_dist.pipeline.storage import AlsoFormat, Mp4Settings

HEIGHT, WIDTH, NUM_FRAMES = 64, 96, 9
ALL = tuple(sorted(ALSO))


def frames() -> list[np.ndarray]:
    """A gradient of colours that moves, and noise in a corner."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    found = [
        np.stack([(x * 2 + 9 * t) % 256, y * 4 % 256, (x + y) % 256], -1).astype(np.uint8) for t in range(NUM_FRAMES)
    ]
    noise = np.random.default_rng(0).integers(0, 256, (NUM_FRAMES, 16, 16, 3), np.uint8)
    for frame, part in zip(found, noise, strict=True):
        frame[:16, :16] = part
    return found


def encode(
    also: tuple[AlsoFormat, ...] = ALL, sound: Sound | None = None, rate: float = 24.0, **changes: object
) -> EncodedVideo:
    return encode_video(
        frames(), height=HEIGHT, width=WIDTH, num_frames=NUM_FRAMES, frame_rate=rate,
        output=replace(Mp4Settings(also=also), **changes), metadata={"title": "a sea"}, sound=sound,
    )  # fmt: skip


def opened(video: EncodedVideo, ending: str) -> av.container.InputContainer:
    return av.open(io.BytesIO(video.also[ending].content), "r", format=READERS[ending])


def test_there_is_a_file_of_each_kind_with_codec_rate_tags_and_colours() -> None:
    video = encode(rate=30000 / 1001)
    found = {}
    for ending in video.also:
        with opened(video, ending) as container:
            stream = container.streams.video[0]
            assert stream.average_rate == Fraction(30000, 1001)
            assert container.metadata["title"] == "a sea"
            codec = stream.codec_context
            found[ending] = codec.name.removeprefix("lib"), codec.pix_fmt, codec.colorspace
    assert found[".mov"] == ("prores", "yuv422p10le", 1)
    assert "av1" in found[".webm"][0] and found[".webm"][1:] == ("yuv420p10le", 1)
    assert found[".mkv"][:2] == ("ffv1", "bgr0")


def policies() -> set[int]:
    """The scheduling policies of this process's threads."""
    return {os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")}


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="SVT-AV1 makes its threads real-time for root")
def test_an_encoder_takes_no_core_from_other_processes() -> None:
    before = policies()
    seen = set[int]()

    def watched() -> Iterator[np.ndarray]:
        for frame in frames():
            seen.update(policies())
            yield frame

    encode_video(
        watched(), height=HEIGHT, width=WIDTH, num_frames=NUM_FRAMES, frame_rate=24.0,
        output=Mp4Settings(also=("av1",)), metadata={},
    )  # fmt: skip
    assert seen | policies() == before == {os.SCHED_OTHER}


def test_the_mp4_is_the_one_that_it_is_without_them_but_for_its_seal() -> None:
    alone, beside = encode(also=()), encode()
    assert alone.also == {} and alone.frames_sha256 == beside.frames_sha256
    told = json.loads(claimed(io.BytesIO(beside.mp4))["also"])
    assert told == {ending: {"sha256": file.sha256, "bytes": len(file.content)} for ending, file in beside.also.items()}
    assert "also" not in claimed(io.BytesIO(alone.mp4))
    assert beside.mp4[: len(alone.mp4) - 300] == alone.mp4[:-300]


def test_equal_frames_give_equal_files_whatever_the_threads_of_x264() -> None:
    first, again = encode(), encode(threads=1)
    assert {ending: file.sha256 for ending, file in first.also.items()} == {
        ending: file.sha256 for ending, file in again.also.items()
    }


def test_ffv1_keeps_every_bit_of_the_frames() -> None:
    back = list(read_frames(encode(("ffv1",)).also[".mkv"].content, ".mkv"))
    assert np.array_equal(np.stack(back), np.stack(frames()))


@pytest.mark.parametrize(("ending", "decibels"), [(".mov", 42), (".webm", 40)])
def test_the_others_are_close(ending: str, decibels: float) -> None:
    back = np.stack(list(read_frames(encode().also[ending].content, ending)))
    error = np.mean((back.astype(float) - np.stack(frames()))[:, 20:, 20:] ** 2)  # without the noise
    assert 10 * np.log10(255**2 / error) > decibels


@pytest.mark.parametrize("sampling_rate", [24000, 48000])
def test_each_has_the_sound_of_the_clip(sampling_rate: int) -> None:
    time = np.arange(sampling_rate // 4) / sampling_rate
    wave = np.stack([0.5 * np.sin(2 * np.pi * pitch * time) for pitch in (440, 880)]).astype(np.float32)
    video = encode(sound=Sound(wave, sampling_rate))
    for ending, codec in ((".mov", "pcm_s24le"), (".mkv", "flac"), (".webm", "opus")):
        with opened(video, ending) as container:
            stream = container.streams.audio[0]
            assert codec in stream.codec_context.name
            blocks = [frame.to_ndarray() for frame in container.decode(stream)]
            layout, rate = stream.codec_context.layout.nb_channels, stream.codec_context.sample_rate
        samples = np.concatenate([b.reshape(-1, layout).T if b.shape[0] == 1 else b for b in blocks], axis=1)
        if ending != ".webm":  # lossless: 24 of its 32 bits
            assert rate == sampling_rate
            assert np.abs(samples[:, : wave.shape[1]] / 2**31 - wave).max() < 2**-22
        else:
            spectrum = np.abs(np.fft.rfft(samples[0]))
            assert abs(np.argmax(spectrum) * rate / samples.shape[1] - 440) < 20


def test_no_sound_is_none_in_all_of_them() -> None:
    video = encode(sound=Sound(np.zeros((2, 24000), np.float32), 24000), audio="none")
    for ending in video.also:
        with opened(video, ending) as container:
            assert not container.streams.audio


@pytest.mark.parametrize("ending", [".mov", ".mkv", ".webm"])
def test_a_check_tells_a_whole_file_from_a_short_and_a_broken_one(ending: str) -> None:
    content = encode().also[ending].content
    check_other_file(content, ending, NUM_FRAMES, HEIGHT, WIDTH)
    with pytest.raises(ValueError, match=f"the {ending[1:]} has {NUM_FRAMES} frames of 64x96 instead of 17 of 64x96"):
        check_other_file(content, ending, 17, HEIGHT, WIDTH)
    with pytest.raises(ValueError, match=f"the {ending[1:]} "):
        check_other_file(content[: len(content) // 3], ending, NUM_FRAMES, HEIGHT, WIDTH)
    with pytest.raises(ValueError, match=f"the {ending[1:]} cannot be read"):
        check_other_file(b"\0" * 5000, ending, NUM_FRAMES, HEIGHT, WIDTH)
