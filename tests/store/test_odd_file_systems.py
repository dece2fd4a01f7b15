"""File systems without locks, links or syncing of folders are good enough; what is said about others is true."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ltx_dist.store import lock
from ltx_dist.store.files import write_atomically, write_once
from ltx_dist.store.lock import folder_lock
from ltx_dist.store.output_errors import OutputError, output_errors


def failing(number: int) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.fault(15)
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL])
def test_a_file_stands_for_a_lock_where_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(fcntl, "flock", failing(number))
    with folder_lock(tmp_path) as held:
        assert (tmp_path / ".ltx-dist" / lock.LOCK_FILE).exists()
        write_atomically(tmp_path / "x", b"x", held=held)
        with (
            pytest.raises(ValueError, match=f"in use by the run with process id {os.getpid()} "),
            folder_lock(tmp_path),
        ):
            pass
    with folder_lock(tmp_path):
        pass


HOLD = """
import errno, fcntl, os, sys
from pathlib import Path
from ltx_dist.store.lock import folder_lock
def flock(descriptor, operation):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = flock
with folder_lock(Path(sys.argv[1])):
    os.kill(os.getpid(), 9)
"""


def test_the_file_of_a_killed_run_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.run([sys.executable, "-c", HOLD, str(tmp_path)], check=False)
    assert ended.returncode == -9 and (tmp_path / ".ltx-dist" / lock.LOCK_FILE).exists()
    monkeypatch.setattr(fcntl, "flock", failing(errno.ENOLCK))
    with folder_lock(tmp_path):
        pass


def test_an_error_of_a_lock_that_means_trouble_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"), folder_lock(tmp_path):
        pass


@pytest.mark.fault(15)
@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EIO])
def test_a_folder_that_cannot_be_synced_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real, synced = os.fsync, []

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        synced.append(descriptor)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    if number == errno.EIO:
        with pytest.raises(OSError, match="Input/output error"):
            write_atomically(tmp_path / "x", b"new")
        return
    write_atomically(tmp_path / "x", b"new")
    assert write_once(tmp_path / "y", b"new", tmp_path, lambda: False)
    assert len(synced) == 2 and (tmp_path / "x").read_bytes() == b"new" == (tmp_path / "y").read_bytes()


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EACCES, errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL])
def test_without_hard_links_a_clip_is_published_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "link", failing(number))
    assert write_once(tmp_path / "x", b"first", tmp_path, lambda: (tmp_path / "x").exists())
    assert not write_once(tmp_path / "x", b"second", tmp_path, lambda: (tmp_path / "x").exists())
    assert (tmp_path / "x").read_bytes() == b"first" and [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.fault(15)
@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free space, or choose another output"),
        (errno.EDQUOT, "free space, or choose another output"),
        (errno.EROFS, "make it writable, or choose another output"),
        (errno.EACCES, "make it writable, or choose another output"),
        (errno.EISDIR, "move away what is in the way, or choose another output"),
        (errno.EIO, "choose another output, or repair this one"),
        (errno.ESTALE, "leave the folder where it is while a run writes to it"),
    ],
)
def test_the_remedy_is_that_of_the_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    monkeypatch.setattr(os, "replace", failing(number))
    with pytest.raises(OutputError) as caught, output_errors():
        write_atomically(tmp_path / "x", b"new")
    assert caught.value.remedy == remedy
    assert ("bytes to write" in str(caught.value)) == (number in (errno.ENOSPC, errno.EDQUOT))
