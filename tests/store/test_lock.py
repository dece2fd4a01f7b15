"""Only one run per folder: the error names the holder, and a holder that died holds nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ltx_dist.store.lock import folder_lock

HOLD = """
import sys
from pathlib import Path
from ltx_dist.store.lock import folder_lock
with folder_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_run_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    with hold(tmp_path) as holder:
        message = f"in use by the run with process id {holder.pid} on {socket.gethostname()} since 20"
        with pytest.raises(ValueError, match=message), folder_lock(tmp_path):
            pass
        assert holder.stdin is not None
        holder.stdin.close()
    with folder_lock(tmp_path):
        pass


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    with hold(tmp_path) as holder:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        with folder_lock(tmp_path):
            assert f'"pid": {os.getpid()}' in (tmp_path / ".ltx-dist" / "holder.json").read_text()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": "x", "host": 1, "since": 2}', b"\xff"])
def test_a_holder_that_cannot_be_read_is_another_run(tmp_path: Path, content: bytes) -> None:
    with folder_lock(tmp_path):
        (tmp_path / ".ltx-dist" / "holder.json").write_bytes(content)
        with pytest.raises(ValueError, match="in use by"), folder_lock(tmp_path):
            pass


def test_the_name_of_a_holder_before_is_not_told_for_the_one_now(tmp_path: Path) -> None:
    """In the moment between a lock and its holder's name, the last run's is still there."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with folder_lock(tmp_path):
        holder = {"pid": gone.pid, "host": socket.gethostname(), "since": "then"}
        (tmp_path / ".ltx-dist" / "holder.json").write_text(str(holder).replace("'", '"'))
        with pytest.raises(ValueError, match="another run that has just begun"), folder_lock(tmp_path):
            pass
