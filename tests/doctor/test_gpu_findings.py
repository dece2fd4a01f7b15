"""What doctor says about a GPU, given its probe's findings: figures, warnings, and failures only if it cannot work."""

from __future__ import annotations

from typing import Any

import pytest

from ltx_dist.doctor import packages
from ltx_dist.doctor.finding import Finding, Status
from ltx_dist.weights.self_check import ConvolutionCheck

ADA = {"name": "NVIDIA GeForce RTX 4090", "capability": [8, 9]}
TURING = {"name": "NVIDIA GeForce RTX 2060", "capability": [7, 5]}


def convolution(error: float, memory: float, cudnn: int) -> dict[str, Any]:
    """As `torch_probe` prints it."""
    check = ConvolutionCheck(error, memory, cudnn)
    return {"figures": check.figures, "warning": check.warning, "is_wrong": check.is_wrong}


def findings(monkeypatch: pytest.MonkeyPatch, device: dict[str, Any], **found: Any) -> dict[str, Finding]:
    """Findings on a machine with this device, by subject and status."""
    told = {
        "version": "2.13.0",
        "cuda": "13.0",
        "rocm": None,
        "available": True,
        "devices": [device],
        "computes": True,
    } | found
    monkeypatch.setattr(packages, "probe", lambda _: told)
    return {f"{one.subject} {one.status}": one for one in packages.check_torch(1, wants_gpu=True)}


def test_a_right_card_has_its_figures_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    found = findings(monkeypatch, ADA, convolutions=[convolution(0.001, 1.5, 92000)], locked_bytes=8 << 30)
    assert set(found) == {"torch ok", "convolution ok"}
    assert "differ from float32 by 0.10% and take 1.5 times the memory" in found["convolution ok"].text


def test_a_known_fault_is_a_warning_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    found = findings(monkeypatch, ADA, convolutions=[convolution(0.001, 27.0, 91002)])
    line = found["convolution warning"]
    assert "cuDNN 9.10.2" in line.text and "nvidia-cudnn-cu12>=9.15" in line.remedy
    assert not [one for one in found.values() if one.status is Status.FAILURE]


def test_only_what_no_rounding_explains_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    found = findings(monkeypatch, ADA, convolutions=[convolution(0.9, 1.0, 92000)])
    assert "by 90.00%" in found["convolution failure"].text


def test_a_card_too_full_to_be_checked_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    found = findings(monkeypatch, ADA, convolutions=[{"error": "CUDA out of memory"}])
    assert "could not be checked: CUDA out of memory" in found["convolution warning"].text


def test_turing_is_pointed_to_float32_and_not_to_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    found = findings(monkeypatch, TURING)
    assert "model.precision to float32" in found["torch warning"].remedy
    assert "float16 is untested" in found["torch warning"].remedy


def test_little_page_locked_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    found = findings(monkeypatch, ADA, locked_bytes=1 << 30)
    assert "gives 1.1 GB of page-locked memory" in found["torch warning"].text


def test_an_amd_card_is_told_that_it_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    found = findings(monkeypatch, ADA, cuda=None, rocm="6.4.2")
    assert set(found) == {"torch warning"}
    assert "ROCm 6.4.2" in found["torch warning"].text and "renders on the CPU" in found["torch warning"].text
