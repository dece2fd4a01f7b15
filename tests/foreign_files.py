"""Makes things that are no regular files, as anyone who may write to an output folder can put there."""

from __future__ import annotations

import os
import socket
from pathlib import Path

GIANT = 100 << 30
"""Bytes of a sparse file that nobody should read."""


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_device_link(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_giant(path: Path) -> None:
    path.touch()
    os.truncate(path, GIANT)


def make_socket(path: Path) -> None:
    where = os.getcwd()
    os.chdir(path.parent)  # a socket's path may have 107 characters
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(where)


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)
