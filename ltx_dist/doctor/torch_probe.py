"""Prints torch's version and devices as JSON; run by `packages.py` in a separate process."""

from __future__ import annotations

import json

import torch


def main() -> None:
    available = torch.cuda.is_available()
    devices = (
        [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())] if available else []
    )
    found = {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "available": available,
        "archs": torch.cuda.get_arch_list() if available else [],
        "devices": [{"name": one.name, "capability": [one.major, one.minor]} for one in devices],
    }
    if devices:
        ones = torch.ones(256, 256, device="cuda")
        found["computes"] = bool((ones @ ones).sum().item() == 256.0**3)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
