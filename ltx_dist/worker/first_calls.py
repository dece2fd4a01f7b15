"""Makes the first call of oneMKL's vector functions in one thread, before several use them at once.

torch computes cos, exp, sqrt and others of float32 and float64 tensors in oneMKL's vector functions, which its threads
call at once. Their first call in a process finds out which CPU this is. In version 2024.2, the one in torch's wheels,
that call stores the processor's number where all threads read the row of a kernel table, and replaces it by the row a
few instructions later, without a lock. On a CPU with AVX-512 the number of the processor (9) is the row of AVX2's
least accurate kernels, so that a thread which looks in between computes its part of that one call with errors of 1e-4.
A transformer's rotary embedding is often the first cos and sin of a process: about one in twenty gave its first clip
other pixels. See pytorch/pytorch#188792, which observed the kernels, and docs/decisions.md.
"""

from __future__ import annotations

import torch

VECTOR_FUNCTIONS = (
    "acos", "asin", "atan", "cos", "erf", "erfc", "erfinv", "exp", "log", "log10", "log2", "sin",
    "sqrt", "tan", "tanh", "trunc",
)  # fmt: skip
"""Those that torch hands to oneMKL. One would do for version 2024.2; others may keep a state for each function."""


def settle_kernels() -> None:
    """Have every vector function choose its kernels now, in the calling thread alone: one element is not divided."""
    for dtype in (torch.float32, torch.float64):
        value = torch.full((1,), 0.5, dtype=dtype)
        for name in VECTOR_FUNCTIONS:
            getattr(torch, name)(value)
