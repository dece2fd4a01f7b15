"""Checks that the checkpoint is complete, and the output's free space, permission and speed."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from ltx_dist.doctor.finding import Finding, failure, ok, warning
from ltx_dist.doctor.packages import REINSTALL
from ltx_dist.doctor.probe import ProbeError, probe
from ltx_dist.messages import size
from ltx_dist.user_cache import from_home

TEST_BYTES = 64 << 20
MIN_FREE_BYTES = 2 * 10**9
"""Room for some hundred clips and their latents."""

MIN_SPEED = 20e6
"""Bytes a second; a clip with its latents is some 15 MB, so that slower storage takes a second of each clip."""


def check_checkpoint(
    name: str, text_encoder: str | None, version: str, upscaler: str | None = None
) -> Iterator[Finding]:
    """Check the files of `model.checkpoint`, and those given beside it, without downloading anything."""
    asked = name, text_encoder or "", version, upscaler or ""
    try:
        found = probe("ltx_dist.doctor.checkpoint_probe", *asked, environment={"HF_HUB_OFFLINE": "1"})
    except ProbeError as error:
        yield failure("checkpoint", f"{name} cannot be opened: {error}", REINSTALL)
        return
    if "absent" in found:
        what, _, remedy = found["absent"].partition("; ")
        if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("", "0", "FALSE", "NO", "OFF"):
            what = what.replace("and the hub was not reached", "and `doctor` does not ask the hub")
            yield warning(
                "checkpoint", what, "check the name; `ltx-dist plan` checks the model, and `render` downloads it"
            )
        else:
            yield failure("checkpoint", what, remedy)
    for mistake in found.get("wrong", ()):
        what, _, remedy = mistake.partition("; ")
        yield failure("checkpoint", what, remedy)
    if "bytes" in found:
        sizes = ", ".join(f"{component} {size(number)}" for component, number in found["bytes"].items())
        yield ok("checkpoint", f"{name}: {found['version']}, complete: {sizes}")


def check_output(output: str) -> Iterator[Finding]:
    """Write and remove a file where the folder is or would be; for a URL, there and in its staging folder."""
    if "://" in output:
        from ltx_dist.store.output import staging_folder

        yield from _check_store(output)
        output = str(staging_folder(output.rstrip("/")))
    folder = _nearest_folder(from_home(output, "--output").absolute())
    if not folder.is_dir():
        yield failure("output", f"{folder} is a file", "choose another folder with --output")
        return
    free = shutil.disk_usage(folder).free
    try:
        speed = _write_speed(folder, min(TEST_BYTES, max(1 << 20, free // 4)))
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = (
            "free some space, or choose another folder" if full else "choose another folder, or change its permissions"
        )
        yield failure("output", f"{folder}: {free / 1e6:.1f} MB free, and cannot be written: {error.strerror}", remedy)
        return
    text = f"{folder}: {free / 1e9:.1f} GB free, {speed / 1e6:.0f} MB/s written"
    if free < MIN_FREE_BYTES:
        yield warning("output", text, "free some space: a run ends with exit code 74 when it is full")
    elif speed < MIN_SPEED:
        yield warning("output", text, "slow storage delays the clips; render to a local disk and copy them")
    else:
        yield ok("output", text)


def _check_store(url: str) -> Iterator[Finding]:
    try:
        speed = probe("ltx_dist.doctor.store_probe", url)["speed"]
    except ProbeError as error:
        remedy = "check the URL and its credentials; s3:// needs the package s3fs, gs:// gcsfs, abfs:// adlfs"
        yield failure("output", f"{url} cannot be written: {error}", remedy)
        return
    text = f"{url}: {speed / 1e6:.0f} MB/s for one object"
    if speed < MIN_SPEED / 4:  # four are written at a time
        yield warning("output", text, "clips may have to wait for uploads; a bucket in the same region is faster")
    else:
        yield ok("output", text)


def _nearest_folder(path: Path) -> Path:
    """The path itself, or the nearest parent that exists."""
    return next(one for one in (path, *path.parents) if one.exists())


def _write_speed(folder: Path, num_bytes: int) -> float:
    """Bytes per second to the disk, fsync included. Raises OSError. Leaves no file behind."""
    path = folder / f".ltx-dist-doctor-{secrets.token_hex(4)}"
    data = os.urandom(1 << 20)  # zeros would not be written at all by some file systems
    began = time.perf_counter()
    try:
        with path.open("xb") as file:
            for _ in range(max(1, num_bytes >> 20)):
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return max(1, num_bytes >> 20) * len(data) / (time.perf_counter() - began)
    finally:
        path.unlink(missing_ok=True)
