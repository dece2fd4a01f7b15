"""The check that a stage's output did not overflow."""

from __future__ import annotations

import torch


def check_finite(tensor: torch.Tensor, what: str, dtype: torch.dtype, setting: str) -> None:
    """Raise FloatingPointError if any element is not finite, saying what overflowed, in which dtype, and what may help.

    Waits for the device: one boolean is copied to the host.
    """
    if not tensor.isfinite().all():
        name = str(dtype).removeprefix("torch.")
        helps = "bfloat16 or float32" if name == "float16" else "float32"
        raise FloatingPointError(f"{what} not finite, computed in {name}; {setting}={helps} may help")
