"""A seal distinguishes an intact file from any other, and players ignore it."""

from __future__ import annotations

import hashlib
import io
import random

import numpy as np
import pytest

from ltx_dist.media.mp4 import check_video, encode_video
from ltx_dist.media.seal import HEADER, SEAL_ID, claimed, read_seal, sealed
from ltx_dist.pipeline.storage import Mp4Settings

FACTS = {"render_key": "12" * 32, "latents_sha256": "ab" * 32}


@pytest.fixture(scope="module")
def mp4() -> bytes:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (5, 32, 32, 3), dtype=np.uint8)
    return encode_video(
        frames, height=32, width=32, num_frames=5, frame_rate=8.0, output=Mp4Settings(), metadata={}, facts=FACTS
    ).mp4


def test_a_whole_file_says_what_it_is(mp4: bytes) -> None:
    facts = read_seal(io.BytesIO(mp4))
    assert facts is not None and facts.items() >= FACTS.items() and len(facts["frames_sha256"]) == 64
    assert claimed(io.BytesIO(mp4)) == facts
    assert claimed(io.BytesIO(mp4[:-1])) == {}, "cut short"


def test_the_boxes_of_the_file_add_up_and_it_plays(mp4: bytes) -> None:
    position, kinds = 0, []
    while position < len(mp4):
        kinds.append(mp4[position + 4 : position + 8])
        position += int.from_bytes(mp4[position : position + 4], "big")
    assert position == len(mp4) and kinds[0] == b"ftyp" and kinds[-1] == b"uuid" and b"moov" in kinds
    check_video(mp4, 5, 32, 32, 8.0)


def test_any_change_of_any_byte_breaks_it(mp4: bytes) -> None:
    rng = random.Random(0)
    for position in [*range(len(mp4) - 300, len(mp4)), *(rng.randrange(len(mp4)) for _ in range(300))]:
        content = bytearray(mp4)
        content[position] ^= 1 << rng.randrange(8)
        assert read_seal(io.BytesIO(content)) is None, position
    for cut in (0, 1, 30, len(mp4) // 2, len(mp4) - 1):
        assert read_seal(io.BytesIO(mp4[:cut])) is None
    assert read_seal(io.BytesIO(mp4 + b"\0")) is None and read_seal(io.BytesIO(bytes(len(mp4)))) is None


def test_facts_that_are_none_of_ours_are_no_seal() -> None:
    assert read_seal(io.BytesIO(sealed(b"video", {"a": "b"}))) == {"a": "b"}
    for content in (b"[]", b"{", b'{"a": 1}', b"\xff"):
        digest = hashlib.sha256(b"video" + content).digest()
        box = HEADER.pack(HEADER.size + len(content), b"uuid", SEAL_ID, digest) + content
        assert read_seal(io.BytesIO(b"video" + box)) is None
