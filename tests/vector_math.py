"""Provokes the race in oneMKL's first call on any CPU with AVX2, thousands of times in one process.

    python tests/vector_math.py CALLS [cured]     prints how many first calls gave other values

The process is reset to its state before the first call: the row of kernels is unknown, and the page with the table of
rows is not in memory, which makes the gap between two stores long enough for another thread. The CPU poses as one with
AVX-512, where the fault shows, by putting AVX2's kernels in place of those for AVX-512.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
import sys
from pathlib import Path

import torch

UNKNOWN = -1
AVX512_NUMBER, AVX512_ROW = 9, 5
ACCURATE_AVX512, ACCURATE_AVX2 = 11, 9
"""Indices in a function's table of kernels."""

FUNCTIONS = (
    "Acos", "Asin", "Atan", "Cos", "Erf", "Erfc", "ErfInv", "Exp", "Ln", "Log10", "Log2", "Sin",
    "Sqrt", "Tan", "Tanh", "Trunc",
)  # fmt: skip
"""Names of the functions in oneMKL."""


class UnlikeMklError(Exception):
    """This torch has no oneMKL that keeps its state as version 2024.2 does."""


class FirstCalls:
    """oneMKL's own variables, found by the instructions that read them."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
            choose, detect = self._address("mkl_vml_serv_cpu_detect"), self._address("mkl_serv_vml_cpu_detect")
        except (OSError, AttributeError) as error:
            raise UnlikeMklError(str(error)) from None
        code = ctypes.string_at(choose, 80)
        if (
            not code.startswith(b"\x8b\x05")
            or ctypes.string_at(detect, 2) != b"\x83\x3d"
            or b"\x48\x8d\x0d" not in code
        ):
            raise UnlikeMklError("other instructions")
        self.row = ctypes.c_int.from_address(choose + 6 + _offset(code, 2))
        self._number = ctypes.c_int.from_address(detect + 7 + _offset(ctypes.string_at(detect, 7), 2))
        at = code.index(b"\x48\x8d\x0d")
        self._rows = choose + at + 7 + _offset(code, at + 3)

    def pretend_avx512(self) -> None:
        torch.ones(1).cos()
        for name in (f"{kind}{function}" for kind in "sd" for function in FUNCTIONS):
            kernels = (ctypes.c_int64 * 18).from_address(self._address(f"mkl_vml_kernel_{name}_ttab"))
            kernels[ACCURATE_AVX512] = kernels[ACCURATE_AVX2]
        self._number.value = AVX512_NUMBER

    def forget(self) -> None:
        """Reset the state to that before a process's first call."""
        self.row.value = UNKNOWN
        page = self._rows // mmap.PAGESIZE * mmap.PAGESIZE
        ctypes.CDLL(None).madvise(ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), mmap.MADV_DONTNEED)

    def _address(self, symbol: str) -> int:
        address = ctypes.cast(getattr(self._library, symbol), ctypes.c_void_p).value
        assert address is not None
        return address


def _offset(code: bytes, at: int) -> int:
    return struct.unpack_from("<i", code, at)[0]


def count_wrong(calls: int, is_cured: bool, enough: int = sys.maxsize) -> tuple[int, int]:
    """How many first calls, shared by two threads, gave other values, and how many were made; stops at `enough`."""
    from ltx_dist.worker.device import settle_kernels

    first, wrong = FirstCalls(), 0
    first.pretend_avx512()
    first.row.value = UNKNOWN
    torch.set_num_threads(2)
    value = torch.rand(4032, generator=torch.Generator().manual_seed(0)) * 100
    torch.ones(1).cos()
    assert first.row.value == AVX512_ROW
    right = value.cos()
    for call in range(1, calls + 1):
        first.forget()
        if is_cured:
            settle_kernels()
        wrong += not torch.equal(value.cos(), right)
        if wrong >= enough:
            return wrong, call
    return wrong, calls


if __name__ == "__main__":
    number, total = count_wrong(int(sys.argv[1]), "cured" in sys.argv)
    print(f"{number} of {total} first calls gave other values")
