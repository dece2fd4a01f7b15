"""Which errors are a shortage of memory: real texts of torch, CUDA, cuDNN, cuBLAS and transformers."""

from __future__ import annotations

import pytest
import torch

from ltx_dist.worker.device import FULL_BYTES, is_lost, is_shortage

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
