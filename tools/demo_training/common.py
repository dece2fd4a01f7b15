"""What every training stage needs: device, schedule, weight averaging, steps and checkpoints."""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
from torch import nn


def pick_device(name: str) -> torch.device:
    """The named device; for "auto", a GPU if there is one, otherwise the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def low_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes with it; CPUs without AVX-512 emulate it, ten times slower than float32."""
    fast = device.type != "cpu" or torch.backends.cpu.get_cpu_capability() == "AVX512"
    return torch.bfloat16 if fast else torch.float32


def autocast(device: torch.device) -> torch.autocast:
    """Matrix products in low precision, where that is faster."""
    dtype = low_precision(device)
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)


def warmup_cosine(step: int, steps: int, warmup: int, floor: float = 0.02) -> float:
    """Learning rate factor: linear warm-up, then a cosine down to `floor`."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


class Average:
    """Exponential moving average of a module's parameters; early steps are forgotten faster."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.values = [p.detach().clone() for p in module.parameters()]

    def update(self, module: nn.Module) -> None:
        """Move the average towards the module's current values."""
        self.updates += 1
        decay = min(self.decay, self.updates / (self.updates + 10))
        with torch.no_grad():
            torch._foreach_lerp_(self.values, list(module.parameters()), 1 - decay)

    def copy_to(self, module: nn.Module) -> None:
        """Overwrite the module's parameters with the averaged ones."""
        with torch.no_grad():
            for parameter, value in zip(module.parameters(), self.values, strict=True):
                parameter.copy_(value)


class Trainer:
    """Steps of one stage: schedule, clipping, averaging, and a checkpoint to continue from."""

    def __init__(
        self,
        path: Path,
        module: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        steps: int,
        warmup: int,
        decay: float,
        seed: int,
    ) -> None:
        self.path, self.module, self.optimizers = path, module, optimizers
        self.steps, self.warmup, self.seed = steps, warmup, seed
        self.average = Average(module, decay)
        self.step = 0
        self._seconds_before = 0.0
        self._groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        self._rates = [group["lr"] for group in self._groups]
        if path.exists():
            self._resume()
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Training time so far in seconds, including earlier runs."""
        return self._seconds_before + time.monotonic() - self._start

    def begin(self) -> None:
        """Seed this step, so that an interrupted run continues with the same noise."""
        torch.manual_seed(self.seed * 1_000_003 + self.step)

    def finish(self, loss: torch.Tensor) -> None:
        """Update the module by a loss."""
        factor = warmup_cosine(self.step, self.steps, self.warmup)
        for group, rate in zip(self._groups, self._rates, strict=True):
            group["lr"] = rate * factor
        loss.backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.average.update(self.module)
        self.step += 1

    def due(self, every: int) -> bool:
        """Whether this is a step to report and save at."""
        return self.step % every == 0 or self.step == self.steps

    def save(self) -> None:
        """Write a checkpoint atomically."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "model": self.module.state_dict(),
            "average": self.average.values,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        torch.save(state, temporary)
        temporary.rename(self.path)

    def _resume(self) -> None:
        state = torch.load(self.path, weights_only=True)
        self.step, self._seconds_before = state["step"], state["seconds"]
        self.module.load_state_dict(state["model"])
        device = next(self.module.parameters()).device
        self.average.values = [value.to(device) for value in state["average"]]
        self.average.updates = self.step
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
