"""Checks Python and the packages: whether they are installed, have the right versions, and work."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from ltx_dist.doctor.finding import Finding, failure, ok, warning
from ltx_dist.doctor.probe import ProbeError, probe
from ltx_dist.placement.inventory import BFLOAT16_CAPABILITY

REINSTALL = "install ltx-dist again with `pip install --force-reinstall`, which brings the packages that it needs"

CUDA_TORCH = "install a CUDA build of torch: `pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu130`"

LOCKED_BYTES = 4 << 30
"""A 2B transformer; WSL2 gives about 1 GB, however much the machine has."""


def check_python() -> Iterator[Finding]:
    yield ok("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def check_packages() -> Iterator[Finding]:
    """Compare every requirement with what is installed. Other checks find out whether it works."""
    from packaging.requirements import Requirement

    wrong, right = [], []
    for line in metadata.requires("ltx-dist") or []:
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{wanted.name} is missing")
            continue
        if wanted.specifier.contains(version, prereleases=True):
            right.append(f"{wanted.name} {version}")
        else:
            wrong.append(f"{wanted.name} is {version}, not {wanted.specifier}")
    if wrong:
        yield failure("packages", "; ".join(wrong), REINSTALL)
    else:
        yield ok("packages", ", ".join(right))


def check_torch(num_gpus: int, wants_gpu: bool) -> Iterator[Finding]:
    """Check torch. num_gpus: GPUs that the driver reports. wants_gpu: whether the config asks for one."""
    try:
        found = probe("ltx_dist.doctor.torch_probe")
    except ProbeError as error:
        yield failure("torch", str(error), REINSTALL)
        return
    build = f"CUDA {found['cuda']}" if found["cuda"] else "CPU only"
    text = f"{found['version']} ({build})"
    if found["rocm"]:
        yield warning(
            "torch",
            f"{found['version']} (ROCm {found['rocm']}): AMD cards are not used, and it renders on the CPU",
            "use an NVIDIA card with a CUDA build of torch",
        )
    elif found["available"]:
        yield ok("torch", f"{text}, sees {', '.join(_named(device) for device in found['devices'])}")
        yield from _check_capabilities(found)
    elif num_gpus and not found["cuda"]:
        yield failure("torch", f"{text}: cannot use the {num_gpus} GPU(s) of this machine", CUDA_TORCH)
    elif num_gpus:
        yield failure(
            "torch", f"{text}: finds no GPU, though the driver does", "update the driver; `nvidia-smi` names its CUDA"
        )
    elif wants_gpu:
        yield failure("torch", f"{text}, and no GPU", "render on a machine with one, or set placement.device to cpu")
    else:
        yield warning("torch", f"{text}: renders on the CPU", "enough for the demo; LTX-Video itself needs a GPU")


def _check_capabilities(found: dict) -> Iterator[Finding]:
    for device in found["devices"]:
        if tuple(device["capability"]) < BFLOAT16_CAPABILITY:
            yield warning(
                "torch",
                f"{_named(device)} has no efficient kernels for bfloat16",
                "set model.precision to float32, which is streamed where it does not fit; float16 is untested",
            )
    for device, check in zip(found["devices"], found.get("convolutions", []), strict=False):
        yield _of_convolution(device["name"], check)
    locked = found.get("locked_bytes")
    if locked is not None and locked < LOCKED_BYTES:
        yield warning(
            "torch",
            f"this machine gives {locked / 1e9:.1f} GB of page-locked memory, so swapping weights is slower",
            "on WSL2 use cards that hold all components; in Docker, --ulimit memlock=-1",
        )
    if not found.get("computes"):
        yield failure(
            "torch",
            "a matrix product on the GPU is wrong",
            "update the driver; if that does not help, replace the card",
        )


def _named(device: dict) -> str:
    major, minor = device["capability"]
    return f"{device['name']} (compute capability {major}.{minor})"


def check_codecs() -> Iterator[Finding]:
    try:
        found = probe("ltx_dist.doctor.codec_probe")
    except ProbeError as error:
        yield failure(
            "codecs", f"cannot write an mp4: {error}", "`pip install --force-reinstall av`: its wheels have x264"
        )
        return
    yield ok("codecs", f"PyAV {found['av']}: wrote and read an mp4 with libx264")


def check_ray() -> Iterator[Finding]:
    from ltx_dist.cluster.token import token_source

    try:
        found = probe("ltx_dist.cluster.ray_probe")
    except ProbeError as error:
        yield failure("ray", f"{error}; one worker in this process still works", REINSTALL)
        return
    mode, source = os.environ.get("RAY_AUTH_MODE", "").lower(), token_source()
    if mode == "disabled":
        text = f"{found['version']}, without a token (RAY_AUTH_MODE=disabled)"
        remedy = "unset it: anyone who can reach a cluster started like this can run code on it"
        yield warning("ray", text, remedy)
    elif mode == "token" and source is None:
        remedy = "put the cluster's token into ~/.ray/auth_token; `ray get-auth-token --generate` makes one"
        yield failure("ray", f"{found['version']}: RAY_AUTH_MODE=token, and there is no token", remedy)
    elif source is None and not _can_make_token():
        remedy = "set HOME to a folder that you can write to; one worker in this process still works"
        yield failure("ray", f"{found['version']}: its token cannot be written to ~/.ray", remedy)
    else:
        yield ok("ray", f"{found['version']}, token {f'from {source}' if source else 'created when first needed'}")


def _can_make_token() -> bool:
    """Whether Ray could write `~/.ray/auth_token`, which it does at the first start of a cluster of its own."""
    home = Path(os.path.expanduser("~"))
    folder = home / ".ray" if (home / ".ray").is_dir() else home
    return folder.is_absolute() and os.access(folder, os.W_OK | os.X_OK)


def _of_convolution(name: str, check: dict) -> Finding:
    """Known faults of cuDNN, with figures. Only what no rounding explains is a failure."""
    if "error" in check:
        return warning("convolution", f"{name}: could not be checked: {check['error']}", "see `nvidia-smi`")
    if check["warning"] is None:
        return ok("convolution", f"{name}: {check['figures']}")
    what, _, remedy = check["warning"].rpartition("; ")
    return (failure if check["is_wrong"] else warning)("convolution", f"{name}: {what}", remedy)
