"""Writes an object to a URL and prints bytes per second as JSON; run by `storage.py`."""

from __future__ import annotations

import json
import os
import secrets
import sys
import time

from fsspec.core import url_to_fs

TEST_BYTES = 4 << 20
"""A clip is of about this size."""


def main(url: str) -> None:
    file_system, root = url_to_fs(url)
    path = f"{root}/.ltx-dist-doctor-{secrets.token_hex(4)}"
    began = time.perf_counter()
    file_system.pipe_file(path, os.urandom(TEST_BYTES))
    seconds = time.perf_counter() - began
    file_system.rm_file(path)
    print(json.dumps({"speed": TEST_BYTES / seconds}))


if __name__ == "__main__":
    main(sys.argv[1])
