"""Encodes a waveform as the sound of a file, and decodes it. Equal waveforms and settings give equal bytes."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer, OutputContainer

from ltx_dist.media.file_formats import AudioCodec
from ltx_dist.pipeline.payloads import Sound, SoundFacts

BIT_RATE = 192_000
"""Bit rate of AAC for both channels: ffmpeg's own encoder needs more than its default of 128,000 to sound clean."""

BLOCK = 1024
"""Samples in one block of AAC; the last block is padded."""

_FORMATS: dict[AudioCodec, str] = {"aac": "fltp", "alac": "s32p", "flac": "s32", "pcm_s24le": "s32", "libopus": "flt"}
"""Sample formats of the encoders; p is planar. Of 32 bits the upper 24 are stored."""

_LAYOUTS = {1: "mono", 2: "stereo"}


def until_the_end(sound: Sound, num_frames: int, rate: Fraction) -> Sound:
    """The sound, padded with silence to the frames' length: some players stop when the shorter of the two ends."""
    missing = round(num_frames / rate * sound.sampling_rate) - sound.waveform.shape[1]
    if missing <= 0:
        return sound
    return Sound(np.pad(sound.waveform, ((0, 0), (0, missing))), sound.sampling_rate)


class SoundTrack:
    """The sound track of a container being written, encoded along with the frames so that the two are interleaved."""

    def __init__(self, container: OutputContainer, sound: Sound, codec: AudioCodec) -> None:
        """Add a stream to the container, to which nothing may have been written yet."""
        channels = sound.waveform.shape[0]
        self._container = container
        self._samples = np.clip(sound.waveform, -1.0, 1.0)
        self._rate = sound.sampling_rate
        self._layout = _LAYOUTS[channels]
        self._format = _FORMATS[codec]
        self._written = 0
        # Without bitexact, the encoder writes its version into the file.
        self._stream = container.add_stream(
            codec, rate=sound.sampling_rate, layout=self._layout, options={"flags": "+bitexact"}
        )
        self._stream.codec_context.format = self._format
        if codec == "aac":
            self._stream.bit_rate = BIT_RATE

    def write(self, seconds: Fraction) -> None:
        """Encode the remaining samples up to this many seconds from the start."""
        end = min(int(seconds * self._rate), self._samples.shape[1])
        if end > self._written:
            self._container.mux(self._stream.encode(self._frame(self._written, end)))
            self._written = end

    def close(self) -> None:
        """Encode the remaining samples, and flush the encoder."""
        self.write(Fraction(self._samples.shape[1], self._rate))
        self._container.mux(self._stream.encode(None))

    def _frame(self, start: int, end: int) -> av.AudioFrame:
        samples = self._samples[:, start:end]
        if self._format.startswith("s32"):
            # Rounded to 24 bits, in the upper three bytes.
            samples = (np.rint(samples.astype(np.float64) * (2**23 - 1)).astype(np.int32)) << 8
        if not self._format.endswith("p"):
            samples = samples.T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format=self._format, layout=self._layout)
        frame.sample_rate, frame.pts, frame.time_base = self._rate, start, Fraction(1, self._rate)
        return frame


def read_sound(container: InputContainer) -> Sound | None:
    """The sound of an open file, decoded to its end; None if it has none.

    Decoding AAC gives up to 1,023 more samples than were encoded, because its last block is padded.
    """
    if not container.streams.audio:
        return None
    stream = container.streams.audio[0]
    stream.codec_context.options = {"err_detect": "explode"}
    blocks = list(_decoded(container))
    channels = stream.codec_context.channels
    waveform = np.concatenate(blocks, axis=1) if blocks else np.zeros((channels, 0), np.float32)
    return Sound(waveform, stream.codec_context.sample_rate)


def sound_problems(found: Sound | None, expected: SoundFacts, seconds: Fraction) -> list[str]:
    """Differences between a clip's sound and its record; `seconds` is the clip's length."""
    if found is None:
        return ["no sound"]
    channels, samples = found.waveform.shape
    wrong: list[str] = []
    if found.sampling_rate != expected.sampling_rate:
        wrong.append(f"{found.sampling_rate} samples per second instead of {expected.sampling_rate}")
    if channels != expected.audio_channels:
        wrong.append(f"{channels} channels of sound instead of {expected.audio_channels}")
    padded = max(expected.audio_samples, round(seconds * expected.sampling_rate))
    if not expected.audio_samples <= samples < padded + BLOCK:
        wrong.append(f"{samples} samples of sound instead of {expected.audio_samples} to {padded}")
    return wrong


def _decoded(container: InputContainer) -> Iterator[np.ndarray]:
    """(channels, samples) float32."""
    for frame in container.decode(container.streams.audio[0]):
        samples = frame.to_ndarray()
        if frame.format.is_planar is False:
            samples = samples.reshape(-1, frame.layout.nb_channels).T
        if samples.dtype.kind == "i":
            samples = samples / float(2 ** (8 * samples.dtype.itemsize - 1))
        yield samples.astype(np.float32)
