"""The seal of an mp4: its last box, which identifies the clip and proves that all bytes before it are unchanged.

So a finished file needs no other record: a lost sidecar can be rebuilt from it, and a damaged file is recognised
without its sidecar. Players skip boxes they do not know (ISO/IEC 14496-12, 4.2).

    bytes 0-3    the box's length, big-endian
    bytes 4-7    `uuid`, the type of boxes that are not in the standard
    bytes 8-23   SEAL_ID
    bytes 24-55  the SHA-256 of all bytes of the file before the box, and then those of the JSON
    bytes 56-    a JSON object of texts, in ASCII
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import BinaryIO

SEAL_ID = uuid.UUID("6c74782d-6469-5374-9eaf-7365616c0001").bytes
"""The id of our box; its last part is the version of the content."""

HEADER = struct.Struct(">I4s16s32s")

MAX_SEAL_BYTES = 4096
"""How many bytes from the end of a file a seal is searched for: far more than its few digests take."""


def sealed(mp4: bytes, facts: Mapping[str, str]) -> bytes:
    """The mp4 with a seal that holds `facts`."""
    content = json.dumps(dict(facts), sort_keys=True, ensure_ascii=True).encode("ascii")
    size = HEADER.size + len(content)
    assert size <= MAX_SEAL_BYTES, size
    return mp4 + HEADER.pack(size, b"uuid", SEAL_ID, _sha256([mp4], content)) + content


def read_seal(mp4: BinaryIO) -> dict[str, str] | None:
    """The facts in the file's seal; None if it has no seal, or if the file was changed.

    Reads the file block by block; if it has no seal, only its end.
    """
    found = _read_end(mp4)
    if found is None:
        return None
    start, digest, content = found
    mp4.seek(0)
    if digest != _sha256(_blocks(mp4, start), content):
        return None
    return _facts(content)


def claimed(mp4: BinaryIO) -> dict[str, str]:
    """The facts of the seal at the end of a file; the rest of the file is not checked."""
    found = _read_end(mp4)
    return {} if found is None else _facts(found[2]) or {}


def _read_end(mp4: BinaryIO) -> tuple[int, bytes, bytes] | None:
    """The offset of the seal in the file, its digest, and its JSON; None if there is no seal."""
    size = mp4.seek(0, os.SEEK_END)
    before = mp4.seek(max(0, size - MAX_SEAL_BYTES))
    tail = mp4.read(MAX_SEAL_BYTES)
    start = _find(tail)
    if start is None:
        return None
    return before + start, HEADER.unpack_from(tail, start)[3], tail[start + HEADER.size :]


def _blocks(mp4: BinaryIO, num_bytes: int) -> Iterator[bytes]:
    while num_bytes > 0 and (block := mp4.read(min(num_bytes, 1 << 20))):
        num_bytes -= len(block)
        yield block


def _find(tail: bytes) -> int | None:
    """The offset in `tail` of the seal that ends it; None if there is none."""
    start = tail.rfind(b"uuid" + SEAL_ID, max(0, len(tail) - MAX_SEAL_BYTES)) - 4
    if start < 0 or len(tail) - start < HEADER.size or HEADER.unpack_from(tail, start)[0] != len(tail) - start:
        return None
    return start


def _facts(content: bytes) -> dict[str, str] | None:
    try:
        facts = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) and all(isinstance(value, str) for value in facts.values()) else None


def _sha256(before: Iterable[bytes], content: bytes) -> bytes:
    digest = hashlib.sha256()
    for block in before:
        digest.update(block)
    digest.update(content)
    return digest.digest()
