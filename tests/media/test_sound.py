"""Sound in an mp4: rates, channels, lengths, positions of samples, and equal bytes for equal waveforms."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from ltx_dist.media.mp4 import check_video, encode_video
from ltx_dist.media.seal import read_seal
from ltx_dist.media.sound import read_sound, until_the_end
from ltx_dist.pipeline.payloads import EncodedVideo, Sound, SoundFacts
from ltx_dist.pipeline.storage import Mp4Settings

HEIGHT, WIDTH, NUM_FRAMES, FRAME_RATE = 64, 96, 25, 24.0
SHAPE = NUM_FRAMES, HEIGHT, WIDTH, FRAME_RATE


def tones(sampling_rate: int = 48000, seconds: float = 1.0, channels: int = 2) -> Sound:
    """A waveform with a different tone in each channel."""
    time = np.arange(int(seconds * sampling_rate)) / sampling_rate
    waves = [0.4 * np.sin(2 * np.pi * (440 + 220 * channel) * time) for channel in range(channels)]
    return Sound(np.stack(waves).astype(np.float32), sampling_rate)


def encode(sound: Sound | None, output: Mp4Settings | None = None, num_frames: int = NUM_FRAMES) -> EncodedVideo:
    frames = (np.full((HEIGHT, WIDTH, 3), 4 * index % 256, np.uint8) for index in range(num_frames))
    return encode_video(
        frames, height=HEIGHT, width=WIDTH, num_frames=num_frames, frame_rate=FRAME_RATE,
        output=output or Mp4Settings(), metadata={}, sound=sound,
    )  # fmt: skip


def streams(mp4: bytes) -> dict[str, tuple[str, float]]:
    """What a player learns: codec and seconds of each kind of stream."""
    with av.open(io.BytesIO(mp4)) as container:
        return {
            stream.type: (stream.codec_context.name, float(stream.duration * stream.time_base))
            for stream in container.streams
        }


def decoded(mp4: bytes) -> Sound:
    with av.open(io.BytesIO(mp4)) as container:
        sound = read_sound(container)
    assert sound is not None
    return sound


@pytest.mark.parametrize("sampling_rate", [24000, 48000])
@pytest.mark.parametrize("audio", ["aac", "alac"])
def test_a_file_has_sound_of_the_models_rate_as_long_as_its_frames(sampling_rate: int, audio: str) -> None:
    video = encode(tones(sampling_rate), Mp4Settings(audio=audio))  # type: ignore[arg-type]
    found = streams(video.mp4)
    assert found["video"] == ("h264", pytest.approx(NUM_FRAMES / FRAME_RATE))
    assert found["audio"][0] == audio and found["audio"][1] == pytest.approx(NUM_FRAMES / FRAME_RATE, abs=0.001)
    sound = decoded(video.mp4)
    assert sound.sampling_rate == sampling_rate and sound.waveform.shape[0] == 2
    check_video(video.mp4, *SHAPE, video.sound)


@pytest.mark.parametrize("audio", ["aac", "alac"])
def test_equal_waveforms_give_equal_files(audio: str) -> None:
    noise = np.random.default_rng(0).standard_normal((2, 48000)).astype(np.float32) * 0.3
    settings = Mp4Settings(audio=audio)  # type: ignore[arg-type]
    assert len({encode(Sound(noise, 48000), settings).mp4_sha256 for _ in range(20)}) == 1


def test_lossless_sound_comes_back_to_24_bits() -> None:
    sound = tones()
    found = decoded(encode(sound, Mp4Settings(audio="alac", pad_audio=False)).mp4)
    assert found.waveform.shape == sound.waveform.shape
    assert np.abs(found.waveform - sound.waveform).max() <= 2**-23


def test_aac_comes_back_close_and_each_channel_in_its_place() -> None:
    sound = tones()
    found = decoded(encode(sound).mp4).waveform[:, : sound.waveform.shape[1]]
    inside = slice(2048, -2048)  # the tones begin and end abruptly, which no codec keeps
    assert np.abs(found - sound.waveform)[:, inside].mean() < 0.01
    assert np.abs(found - sound.waveform[::-1])[:, inside].max() > 0.5


def test_a_click_is_heard_where_it_is() -> None:
    waveform = np.zeros((2, 48000), np.float32)
    waveform[:, 20_000] = 0.9
    for audio in ("aac", "alac"):
        found = decoded(encode(Sound(waveform, 48000), Mp4Settings(audio=audio)).mp4)  # type: ignore[arg-type]
        assert np.abs(found.waveform[0]).argmax() == 20_000


def test_digests_are_of_the_waveform_before_silence_is_added() -> None:
    sound = tones(seconds=0.9)
    padded, bare = encode(sound), encode(sound, Mp4Settings(pad_audio=False))
    expected = hashlib.sha256(sound.waveform.tobytes()).hexdigest()
    assert padded.sound == bare.sound == SoundFacts(expected, 48000, 2, 43200)
    assert streams(bare.mp4)["audio"][1] == pytest.approx(0.9, abs=0.001)
    assert streams(padded.mp4)["audio"][1] == pytest.approx(NUM_FRAMES / FRAME_RATE, abs=0.001)


def test_the_seal_and_a_sidecar_tell_of_the_sound() -> None:
    video = encode(tones())
    assert SoundFacts.recorded(read_seal(io.BytesIO(video.mp4)) or {}) == video.sound
    assert SoundFacts.recorded({"frames_sha256": "00"}) is None
    with pytest.raises(KeyError, match="sampling_rate"):
        SoundFacts.recorded({"audio_sha256": "00"})


def test_silence_reaches_the_end_of_the_frames_and_nothing_is_cut() -> None:
    rate = Fraction(24)
    assert until_the_end(tones(seconds=1.0), 25, rate).waveform.shape == (2, 50_000)
    long = tones(seconds=2.0)
    assert until_the_end(long, 25, rate) is long


def test_samples_beyond_full_scale_are_clipped_and_not_wrapped() -> None:
    loud = Sound(np.full((2, 48000), 1.5, np.float32), 48000)
    found = decoded(encode(loud, Mp4Settings(audio="alac")).mp4).waveform
    assert found[:, :48000].min() > 0.99


def test_no_sound_is_stored_where_none_is_wanted_or_made() -> None:
    for video in (encode(tones(), Mp4Settings(audio="none")), encode(None)):
        assert "audio" not in streams(video.mp4) and video.sound is None


def test_one_channel_is_mono() -> None:
    video = encode(tones(channels=1))
    assert decoded(video.mp4).waveform.shape[0] == 1 and video.sound is not None and video.sound.audio_channels == 1


def test_sound_that_is_not_what_was_recorded_is_a_problem() -> None:
    video = encode(tones())
    assert video.sound is not None
    for wrong, message in (
        (replace(video.sound, sampling_rate=24000), "48000 samples per second instead of 24000"),
        (replace(video.sound, audio_channels=1), "2 channels of sound instead of 1"),
        (replace(video.sound, audio_samples=99_000), "samples of sound instead of 99000"),
    ):
        with pytest.raises(ValueError, match=message):
            check_video(video.mp4, *SHAPE, wrong)
    with pytest.raises(ValueError, match="no sound"):
        check_video(encode(None).mp4, *SHAPE, video.sound)


def test_frames_and_sound_lie_side_by_side() -> None:
    """In a clip of half a minute, a player that starts in the middle finds both streams there."""
    mp4 = encode(tones(seconds=30.0), num_frames=24 * 30).mp4
    with av.open(io.BytesIO(mp4)) as container:
        packets = [
            (packet.stream.type, packet.pos, float(packet.pts * packet.time_base))
            for packet in container.demux()
            if packet.pts is not None
        ]
    ordered = sorted(packets, key=lambda packet: packet[1])
    latest = {"video": 0.0, "audio": 0.0}
    worst = 0.0
    for kind, _, seconds in ordered:
        latest[kind] = max(latest[kind], seconds)
        worst = max(worst, abs(latest["video"] - latest["audio"]))
    assert worst < 4.0
