"""Checks a GPU's 3D convolutions: the VAE is made of them, and some versions of cuDNN compute them wrongly.

cuDNN 9.8 to 9.14 can compute them wrongly in bfloat16 (github.com/pytorch/pytorch/issues/163539). With these, torch 2.9
and later do not use cuDNN (pull/166480), which is correct but takes 17 times the memory (issues/166643).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

SUSPECT_CUDNN = range(90800, 91500)
"""`torch.backends.cudnn.version()`: major * 10,000 + minor * 100 + patch."""

UNUSUAL_ERROR = 0.02
"""Root mean square of the difference from float32, relative to that of the values. Rounding the result to bfloat16's 8
bits gives 0.0017 at most; partial sums in bfloat16 may give several times that. A larger error gives a warning."""

WRONG_ERROR = 0.25
"""An error beyond any rounding: if each of the 3,456 additions of a value were rounded to bfloat16, the errors would
add up to sqrt(3456) * 2**-9 = 0.11. A kernel that reads wrong elements has an error as large as its values: 1.0."""

UNUSUAL_MEMORY = 8.0
"""Memory that one convolution may take, as a multiple of its input and output. cuDNN's copies in its own layout take 1
to 2 times as much; vol2col, which replaces cuDNN, writes 27 columns for each element."""

REMEDY = "install torch 2.13 or newer for CUDA 13, or `pip install 'nvidia-cudnn-cu12>=9.15'`"

CHANNELS, VOLUME = 128, (5, 32, 64)
"""Channels of the decoder's last block, and a piece of it that a CPU computes in a fraction of a second."""


@dataclass(frozen=True, slots=True)
class ConvolutionCheck:
    """The result of a 3D convolution in bfloat16 on a device, compared with float32 on the CPU.

    error: relative root mean square; NaN where the result has one. memory: bytes in addition to input and output; None
    on a CPU. cudnn: its version as torch gives it.
    """

    error: float
    memory: float | None = None
    cudnn: int | None = None

    @property
    def figures(self) -> str:
        taken = "" if self.memory is None else f" and take {self.memory:.1f} times the memory of their tensors"
        return f"3D convolutions in bfloat16 differ from float32 by {self.error:.2%}{taken} ({self._versions()})"

    @property
    def is_wrong(self) -> bool:
        """Whether the error exceeds any rounding, so that clips would be noise."""
        return not self.error <= WRONG_ERROR

    @property
    def is_unusual(self) -> bool:
        return self.is_wrong or self.error > UNUSUAL_ERROR or (self.memory or 0.0) > UNUSUAL_MEMORY or self.is_suspect

    @property
    def is_suspect(self) -> bool:
        """Whether this version of cuDNN is known for wrong results, even if this check was right."""
        return self.cudnn in SUSPECT_CUDNN

    @property
    def warning(self) -> str | None:
        """One line with figures and a remedy; None if the result is normal."""
        if not self.is_unusual:
            return None
        known = "; this version of cuDNN is known for wrong results" if self.is_suspect else ""
        return f"{self.figures}{known}; {REMEDY}"

    def _versions(self) -> str:
        if self.cudnn is None:
            return f"torch {torch.__version__}"
        name = f"{self.cudnn // 10000}.{self.cudnn // 100 % 100}.{self.cudnn % 100}"
        return f"torch {torch.__version__}, cuDNN {name}"


def check_convolution(device: torch.device) -> ConvolutionCheck:
    """Compute a 3D convolution on the device and on the CPU, in under a second, and compare the results.

    Raises RuntimeError if there is not enough memory.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    x = torch.randn(1, CHANNELS, *VOLUME, generator=generator).bfloat16()
    weight = (torch.randn(CHANNELS, CHANNELS, 3, 3, 3, generator=generator) / (27 * CHANNELS) ** 0.5).bfloat16()
    expected = torch.nn.functional.conv3d(x.float(), weight.float(), padding=1)
    found, memory = _convolve(x.to(device), weight.to(device))
    error = (found.float().cpu() - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    return ConvolutionCheck(error.item(), memory, torch.backends.cudnn.version() if device.type == "cuda" else None)


def _convolve(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, float | None]:
    """The result and, on a GPU, the memory that it took as a multiple of input and output; None on a CPU."""
    found = torch.nn.functional.conv3d(x, weight, padding=1)  # its kernel is loaded with the first call
    if not x.is_cuda:
        return found, None
    del found
    torch.cuda.reset_peak_memory_stats(x.device)
    before = torch.cuda.memory_allocated(x.device)
    found = torch.nn.functional.conv3d(x, weight, padding=1)
    taken = torch.cuda.max_memory_allocated(x.device) - before - found.nbytes
    return found, taken / (x.nbytes + found.nbytes)
