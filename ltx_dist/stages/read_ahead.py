"""Weights into the page cache before they are touched."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

CHUNK_BYTES = 16 << 20


def read_ahead(files: list[Path]) -> None:
    """Have files read from end to end, in the background.

    Safetensors are mapped into memory, and a page that is not there yet is read when it is touched: in small pieces
    and one after the other, while the work waits (figures in docs/decisions.md). Nothing is kept but the pages that the
    system may take back at any time; a file that cannot be read is for whoever loads it to tell of.
    """
    Thread(target=_read, args=(files,), name="read-ahead", daemon=True).start()


def _read(files: list[Path]) -> None:
    buffer = bytearray(CHUNK_BYTES)
    for path in files:
        try:
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass
        except OSError:
            return
