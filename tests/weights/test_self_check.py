"""The check of 3D convolutions: any kind of rounding passes, unusual results are reported, wrong ones are refused."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from ltx_dist.weights import self_check
from ltx_dist.weights.self_check import ConvolutionCheck, check_convolution

CPU = torch.device("cpu")
RIGHT = torch.nn.functional.conv3d


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_check, "CHANNELS", 16)
    monkeypatch.setattr(self_check, "VOLUME", (3, 8, 8))


def planted(monkeypatch: pytest.MonkeyPatch, kernel: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    """Replaces the convolution in bfloat16, but not the one in float32."""

    def convolve(x: torch.Tensor, weight: torch.Tensor, padding: int) -> torch.Tensor:
        return kernel(x, weight) if x.dtype == torch.bfloat16 else RIGHT(x, weight, padding=padding)

    monkeypatch.setattr(torch.nn.functional, "conv3d", convolve)


def test_this_machine_convolves_rightly_and_the_figures_say_so() -> None:
    check = check_convolution(CPU)
    assert check.error < 0.005 and not check.is_wrong and check.warning is None
    assert check.figures.startswith("3D convolutions in bfloat16 differ from float32 by 0.")


def in_partial_sums(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The worst possible rounding: every channel's sum is added in bfloat16."""
    parts = [RIGHT(x[:, c : c + 1], weight[:, c : c + 1], padding=1) for c in range(x.shape[1])]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def test_a_kernel_that_rounds_more_than_others_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = check_convolution(CPU).error
    planted(monkeypatch, in_partial_sums)
    check = check_convolution(CPU)
    assert exact < check.error and not check.is_wrong and check.warning is None


@pytest.mark.parametrize(
    "fault",
    [
        lambda y: y.flip(2),
        lambda y: y.roll(1, 4),
        lambda y: torch.zeros_like(y),
        lambda y: y.where(y < 2, math.nan),
        lambda y: y * 1.5,
    ],
    ids=["turned over", "shifted", "zero", "NaN", "too large"],
)
def test_a_kernel_that_is_wrong_is_refused(
    monkeypatch: pytest.MonkeyPatch, fault: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    planted(monkeypatch, lambda x, weight: fault(RIGHT(x, weight, padding=1)))
    check = check_convolution(CPU)
    assert check.is_wrong and "nvidia-cudnn-cu12>=9.15" in (check.warning or "")


@pytest.mark.parametrize(("cudnn", "name"), [(90800, "9.8.0"), (91002, "9.10.2"), (91400, "9.14.0")])
def test_a_version_known_for_wrong_results_is_reported_and_not_refused(cudnn: int, name: str) -> None:
    check = ConvolutionCheck(0.001, 1.0, cudnn)
    assert not check.is_wrong and f"cuDNN {name}); this version of cuDNN is known" in (check.warning or "")


@pytest.mark.parametrize("cudnn", [None, 90701, 91500, 92000])
def test_other_versions_are_not_mentioned(cudnn: int | None) -> None:
    assert ConvolutionCheck(0.001, 1.0, cudnn).warning is None


def test_what_is_unusual_is_reported_with_its_figures() -> None:
    assert "by 5.00% and take 1.0 times" in (ConvolutionCheck(0.05, 1.0).warning or "")
    assert "and take 27.0 times the memory" in (ConvolutionCheck(0.001, 27.0).warning or "")
