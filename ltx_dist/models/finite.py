"""Detects numbers that overflowed: the clip would be black, but look finished."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def check_finite(tensor: torch.Tensor, what: str, dtype: torch.dtype, setting: str) -> None:
    """Raises FloatingPointError that says what overflowed, in which dtype, and which setting helps.

    One number comes to the host, for which it waits.
    """
    if not tensor.isfinite().all():
        name = str(dtype).removeprefix("torch.")
        helps = "bfloat16 or float32" if name == "float16" else "float32"
        raise FloatingPointError(f"{what} not finite, computed in {name}; {setting}={helps} may help")
