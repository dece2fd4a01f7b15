"""How fast devices are: a table of published figures, by the names that their drivers give."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True, slots=True)
class DeviceRate:
    """tflops: dense matrix products in bfloat16, as published (H100, H200: as measured on random data). memory_gbs and
    link_gbs: GB/s of the device's own memory, and from pinned host memory to it."""

    tflops: float
    memory_gbs: float
    link_gbs: float


DEVICE_RATES: Mapping[str, DeviceRate] = {
    "GB200": DeviceRate(2250, 8000, 50),
    "B200": DeviceRate(2250, 8000, 50),
    "GH200": DeviceRate(790, 4000, 50),
    "H200": DeviceRate(790, 4800, 50),
    "H100": DeviceRate(790, 3350, 50),
    "A100": DeviceRate(312, 1555, 25),
    "L40S": DeviceRate(362, 864, 25),
    "L40": DeviceRate(181, 864, 25),
    "L4": DeviceRate(121, 300, 25),
    "A10G": DeviceRate(70, 600, 25),
    "A10": DeviceRate(125, 600, 25),
    "PRO 6000": DeviceRate(503, 1792, 50),
    "6000 Ada": DeviceRate(364, 960, 25),
    "A6000": DeviceRate(155, 768, 25),
    "A5000": DeviceRate(111, 768, 25),
    "5090": DeviceRate(209, 1792, 50),
    "5080": DeviceRate(113, 960, 50),
    "5070 Ti": DeviceRate(88, 896, 50),
    "5070": DeviceRate(62, 672, 50),
    "4090": DeviceRate(165, 1008, 25),
    "4080": DeviceRate(97, 717, 25),
    "4070 Ti": DeviceRate(80, 504, 25),
    "4070": DeviceRate(58, 504, 25),
    "4060": DeviceRate(30, 272, 12),
    "3090": DeviceRate(71, 936, 25),
    "3080": DeviceRate(60, 760, 25),
    "3070": DeviceRate(41, 448, 25),
    "3060": DeviceRate(25, 360, 12),
    "2080 Ti": DeviceRate(13, 616, 12),
    "2080": DeviceRate(10, 448, 12),
    "2070": DeviceRate(7, 448, 12),
    "2060": DeviceRate(6, 336, 12),
    "V100": DeviceRate(15, 900, 12),
    "T4": DeviceRate(8, 320, 12),
}
"""By words in the name that the driver gives; the first row that matches counts. From the 2080 Ti down, cards have no
bfloat16, and the figures are those of float32."""

LAPTOP_SHARE = 0.5
"""Speed of a laptop's card over that of the desktop's of the same name: fewer cores, slower memory, less power."""

UNKNOWN_GPU = DeviceRate(100, 600, 12)
CPU_THREAD = DeviceRate(0.04, 8, 8)
"""Operations per second of one core: AVX2 in float32."""

THREADS_EXPONENT = 0.8
"""A second thread makes a stage 1.7 times as fast, not twice."""


@cache
def known_rate(device_name: str) -> DeviceRate | None:
    """A GPU's figures, by its name; None if it is not in the table. Cached, as planning asks once per clip."""
    rates = (rate for words, rate in DEVICE_RATES.items() if re.search(rf"\b{words}\b", device_name))
    rate = next(rates, None)
    if rate is None or "Laptop" not in device_name:
        return rate
    return DeviceRate(rate.tflops * LAPTOP_SHARE, rate.memory_gbs * LAPTOP_SHARE, rate.link_gbs * LAPTOP_SHARE)
