"""Provokes real errors of a card: how shortages are worded, which error ends the device, whether memory comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from .scale import GB, NEEDS_CUDA, Row, Scale, emptied


def shortages(scale: Scale) -> Iterator[Row]:
    """Try an allocation, convolutions, the first matrix product and the first kernel of a kind on a full card."""
    from ltx_dist.worker.device import is_lost, is_shortage

    if not scale.is_cuda:
        yield NEEDS_CUDA
        return
    device = scale.device
    for name, attempt in _attempts(device).items():
        emptied(scale)
        free_before, _ = torch.cuda.mem_get_info(device)
        row: Row = {"case": name}
        try:
            attempt()
        except Exception as error:  # noqa: BLE001 (the question is which error it is)
            row |= {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
            shortage = isinstance(error, RuntimeError) and is_shortage(error)
            row |= {"ok": shortage and not is_lost(device, error), "aim": "a shortage, the device usable"}
            error = None
        emptied(scale)
        free_after, _ = torch.cuda.mem_get_info(device)
        yield row | {"not_given_back_gb": round((free_before - free_after) / GB, 3)}


def lost(scale: Scale) -> Iterator[Row]:
    """Provoke a device assert: from then on every call raises, and the worker must exit."""
    from ltx_dist.worker.device import is_lost, is_shortage

    if not scale.is_cuda:
        yield NEEDS_CUDA
        return
    try:
        torch.zeros(4, device=scale.device)[torch.tensor([9], device=scale.device)].cpu()
    except RuntimeError as error:
        found = is_lost(scale.device, error) and not is_shortage(error)
        yield {"case": "device assert", "error": str(error).splitlines()[0], "ok": found, "aim": "the device is lost"}


def _attempts(device: torch.device) -> Mapping[str, Callable[[], Any]]:
    def filled(leave: int, then: Callable[[], Any]) -> Any:
        """Call `then` while all but `leave` bytes of the card are taken."""
        torch.zeros(1, device=device)
        free, _ = torch.cuda.mem_get_info(device)
        held = torch.empty(max(0, free - leave), dtype=torch.uint8, device=device)
        try:
            return then()
        finally:
            del held

    # Made before the card is full, so that the operation itself is what runs out of memory.
    volume = torch.randn(1, 64, 17, 128, 128, device=device, dtype=torch.bfloat16)
    kernel = torch.randn(64, 64, 3, 3, 3, device=device, dtype=torch.bfloat16)
    matrix = torch.randn(4096, 4096, device=device)
    mb = 2**20
    return {
        "allocation": lambda: torch.empty(1 << 50, dtype=torch.uint8, device=device),
        "convolution, 16 MB left": lambda: filled(
            16 * mb, lambda: torch.nn.functional.conv3d(volume, kernel, padding=1)
        ),
        "convolution, 80 MB left": lambda: filled(
            80 * mb, lambda: torch.nn.functional.conv3d(volume, kernel, padding=1)
        ),
        "matrix product, 2 MB left": lambda: filled(2 * mb, lambda: matrix @ matrix),
        "first kernel of a kind, 2 MB left": lambda: filled(2 * mb, lambda: matrix.sort(dim=1)),
    }
