"""The speed of a GPU follows from the name that its driver reports."""

from __future__ import annotations

import pytest

from ltx_dist.estimates.device_rates import known_rate


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A10", 125),
        ("NVIDIA A10G", 70),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA GH200 480GB", 790),
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 82.5),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", 80),
        ("NVIDIA RTX 6000 Ada Generation", 364),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 503),
        ("Tesla T4", 8),
    ],
)
def test_a_card_has_the_figures_of_its_own_row(name: str, tflops: float) -> None:
    rate = known_rate(name)
    assert rate is not None and rate.tflops == tflops


@pytest.mark.parametrize("name", ["NVIDIA RTX A1000", "NVIDIA T400 4GB", "NVIDIA RTX 2000 Ada Generation", "MIG slice"])
def test_a_name_that_only_contains_another_is_unknown(name: str) -> None:
    assert known_rate(name) is None
