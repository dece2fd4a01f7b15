"""Prints torch's version and devices as JSON; run by `packages.py` in a separate process."""

from __future__ import annotations

import json

import psutil
import torch

from ltx_dist.messages import first_line
from ltx_dist.weights.self_check import check_convolution

LOCK_PIECE, LOCK_ENOUGH = 256 << 20, 8 << 30
"""Bytes per allocation, as for weights, and the total at which to stop: T5 or most of a 2B transformer."""


def lockable_bytes() -> int:
    """How much page-locked memory this process gets, up to LOCK_ENOUGH and half of what is free now."""
    enough = min(LOCK_ENOUGH, psutil.virtual_memory().available // 2)
    held: list[torch.Tensor] = []
    try:
        while len(held) * LOCK_PIECE < enough:
            held.append(torch.empty(LOCK_PIECE, dtype=torch.uint8, pin_memory=True))
    except RuntimeError:
        pass
    return len(held) * LOCK_PIECE


def convolution(device: torch.device) -> dict[str, object]:
    """Figures of the check, and whether they are unusual or wrong."""
    try:
        check = check_convolution(device)
    except RuntimeError as error:
        return {"error": first_line(error)}
    return {"figures": check.figures, "warning": check.warning, "is_wrong": check.is_wrong}


def main() -> None:
    available = torch.cuda.is_available()
    devices = (
        [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())] if available else []
    )
    found = {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "rocm": torch.version.hip,
        "available": available,
        "archs": torch.cuda.get_arch_list() if available else [],
        "devices": [{"name": one.name, "capability": [one.major, one.minor]} for one in devices],
    }
    if devices:
        ones = torch.ones(256, 256, device="cuda")
        found["computes"] = bool((ones @ ones).sum().item() == 256.0**3)
        found["convolutions"] = [convolution(torch.device("cuda", index)) for index in range(len(devices))]
        found["locked_bytes"] = lockable_bytes()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
