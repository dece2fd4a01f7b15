"""Which errors count as a shortage, by real messages of torch, CUDA and other libraries; and how a device is opened."""

from __future__ import annotations

import pytest
import torch

from ltx_dist.engine.executor import WorkerStartError
from ltx_dist.pipeline.worker import Worker
from ltx_dist.placement.fitting import CUDA_CONTEXT
from ltx_dist.weights.self_check import ConvolutionCheck
from ltx_dist.worker import device
from ltx_dist.worker.device import (
    FULL_BYTES,
    is_lost,
    is_shortage,
    keep_to,
    missing_memory,
    notices_of_start,
)

CUDA = torch.device("cuda", 0)

ALWAYS = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 23.64 GiB"),
    torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("FIND was unable to find an engine to execute this computation"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
)

ON_A_FULL_DEVICE = (
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
    RuntimeError("CUDA error: CUBLAS_STATUS_INTERNAL_ERROR when calling `cublasGemmEx`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError(
        "We encountered some issues during automatic conversion of the weights. For details look at the `CONVERSION` "
        "entries of the above report!"
    ),
)

NEVER = (
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (1x3 and 4x5)"),
    RuntimeError("Expected all tensors to be on the same device"),
    FloatingPointError("the latents are not finite"),
)


def free(monkeypatch: pytest.MonkeyPatch, num_bytes: int) -> None:
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (num_bytes, 24 * 10**9))


@pytest.mark.parametrize("error", ALWAYS, ids=str)
def test_a_shortage_in_every_wording(monkeypatch: pytest.MonkeyPatch, error: RuntimeError) -> None:
    free(monkeypatch, 10**10)
    assert is_shortage(error) and is_shortage(error, CUDA) and not is_shortage(NEVER[0], CUDA)


@pytest.mark.parametrize("error", ON_A_FULL_DEVICE, ids=str)
def test_words_of_many_causes_are_a_shortage_where_the_device_is_full(
    monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    free(monkeypatch, FULL_BYTES - 1)
    assert is_shortage(error, CUDA) and not is_shortage(error, torch.device("cpu"))
    free(monkeypatch, FULL_BYTES)
    assert not is_shortage(error, CUDA)


@pytest.mark.parametrize("error", NEVER, ids=str)
def test_other_errors_are_none_on_a_full_device_either(monkeypatch: pytest.MonkeyPatch, error: RuntimeError) -> None:
    free(monkeypatch, 0)
    assert not is_shortage(error, CUDA)


def test_a_device_that_no_longer_answers_is_lost_and_not_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_again(device: torch.device) -> None:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch.cuda, "synchronize", raise_again)
    monkeypatch.setattr(torch.cuda, "mem_get_info", raise_again)
    error = torch.AcceleratorError("CUDA error: device-side assert triggered")
    assert not is_shortage(error, CUDA) and is_lost(CUDA, error)


def gpu(capacity: int | None, peak_bytes: int = 0) -> Worker:
    return Worker("cuda:0", ("decode",), "cuda", capacity=capacity, peak_bytes=peak_bytes)


def test_a_worker_takes_no_more_of_the_device_than_it_was_planned_with(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[float] = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (20 * 10**9, 24 * 10**9))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, device: kept.append(share))
    keep_to(CUDA, 12 * 10**9)
    keep_to(CUDA, 30 * 10**9)
    keep_to(CUDA, None)
    assert kept == [(12 * 10**9 - CUDA_CONTEXT) / (24 * 10**9), 1.0]


def test_memory_that_others_hold_is_named_before_the_first_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 10 * 10**9)
    assert missing_memory(CUDA, gpu(24 * 10**9, 10 * 10**9)) is None
    missing = missing_memory(CUDA, gpu(24 * 10**9, 20 * 10**9)) or ""
    assert missing.startswith("the plan needs 19.4 GB of the device, and 10.0 of 24.0 GB are free; `nvidia-smi`")
    assert missing_memory(torch.device("cpu"), gpu(24 * 10**9, 20 * 10**9)) is None


@pytest.mark.parametrize(("error", "starts"), [(0.001, True), (0.1, True), (0.9, False), (float("nan"), False)])
def test_only_a_card_that_is_wrong_beyond_rounding_does_not_start(
    monkeypatch: pytest.MonkeyPatch, error: float, starts: bool
) -> None:
    free(monkeypatch, 10**10)
    monkeypatch.setattr(device, "check_convolution", lambda _: ConvolutionCheck(error, 1.0, 91002))
    if not starts:
        with pytest.raises(WorkerStartError, match=r"^worker cuda:0: 3D convolutions in bfloat16 differ .* 9\.10\.2"):
            notices_of_start(CUDA, gpu(None))
        return
    (line,) = notices_of_start(CUDA, gpu(None))
    assert "this version of cuDNN is known for wrong results" in line


def test_a_card_too_full_for_the_check_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: torch.device) -> ConvolutionCheck:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    free(monkeypatch, 10**10)
    monkeypatch.setattr(device, "check_convolution", full)
    assert notices_of_start(CUDA, gpu(None)) == [
        "3D convolutions could not be checked: CUDA out of memory. Tried to allocate 20.00 MiB"
    ]


def test_a_right_card_with_free_memory_has_nothing_to_report(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 10**10)
    monkeypatch.setattr(device, "check_convolution", lambda _: ConvolutionCheck(0.001, 1.0, 92000))
    assert notices_of_start(CUDA, gpu(24 * 10**9, 10 * 10**9)) == []
    assert notices_of_start(torch.device("cpu"), gpu(None)) == []
