"""Runs `ltx-dist` as it would run on macOS or Windows, as far as Python can tell: `other_platform.py windows plan ...`

What these systems lack is removed after the libraries are imported, because these have their own code for each system.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

LIBRARIES = ("psutil", "filelock", "fsspec", "huggingface_hub", "jinja2", "pydantic", "rich.console", "rich.table",
             "rich.live", "safetensors", "tenacity", "typer.testing", "yaml", "av", "numpy", "PIL.Image")  # fmt: skip

MODULES = {"macos": (), "windows": ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "readline")}

OS = {
    "macos": ("sched_getaffinity", "sched_setaffinity", "process_cpu_count"),
    "windows": (
        "sched_getaffinity", "sched_setaffinity", "sysconf", "statvfs", "fork", "getuid", "geteuid", "getgid", "uname",
        "killpg", "setsid", "getpgid", "mkfifo", "fchmod", "fchown", "chown", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC",
        "O_DIRECTORY", "O_NOCTTY", "O_SYNC",
    ),
}  # fmt: skip

SIGNALS = {
    "macos": (),
    "windows": ("SIGKILL", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGQUIT", "setitimer", "pthread_sigmask"),
}

WITH_FOLDER = ("open", "stat", "replace", "link", "unlink", "mkdir", "rmdir", "rename", "listdir", "scandir")


class _Missing:
    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name in self._names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def become(system: str) -> None:
    for name in LIBRARIES:
        importlib.import_module(name)
    import psutil

    for name in MODULES[system]:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, _Missing(MODULES[system]))  # type: ignore[arg-type]
    for module, names in ((os, OS[system]), (signal, SIGNALS[system])):
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    if system == "macos":
        del psutil.Process.cpu_affinity
    else:
        for name in WITH_FOLDER:
            setattr(os, name, _without_folders(getattr(os, name)))
    _hide_proc()


def _without_folders(call: Any) -> Any:
    """Windows has no calls relative to a folder's descriptor."""

    def checked(*arguments: Any, **named: Any) -> Any:
        if any(named.get(key) is not None for key in ("dir_fd", "src_dir_fd", "dst_dir_fd")):
            raise NotImplementedError(f"{call.__name__}: dir_fd unavailable on this platform")
        return call(*arguments, **named)

    return checked


def _hide_proc() -> None:
    original = Path.open

    def opened(self: Path, *arguments: Any, **named: Any) -> Any:
        if str(self).startswith("/proc"):
            raise FileNotFoundError(str(self))
        return original(self, *arguments, **named)

    Path.open = opened  # type: ignore[method-assign]


if __name__ == "__main__":
    become(sys.argv.pop(1))
    sys.argv[0] = "ltx-dist"
    from ltx_dist.cli import main

    main()
