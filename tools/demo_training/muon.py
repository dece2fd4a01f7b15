"""Muon for convolution kernels and matrices: momentum whose update is orthogonalised."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from .common import low_precision


def orthogonalise(matrix: torch.Tensor, iterations: int = 5) -> torch.Tensor:
    """Roughly the nearest matrix with all singular values one (quintic Newton-Schulz)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.to(low_precision(matrix.device))
    tall = x.size(0) > x.size(1)
    if tall:
        x = x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """SGD with Nesterov momentum and orthogonal updates; kernels count as (out, rest) matrices."""

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter with a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter.grad)
                momentum = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                direction = parameter.grad.lerp(momentum, group["momentum"])
                update = orthogonalise(direction.flatten(1)).view_as(parameter)
                rows = parameter.size(0)
                columns = parameter[0].numel()
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                # Scaled so that the update's root mean square is 0.2, as one of AdamW's.
                parameter.add_(update, alpha=-0.2 * group["lr"] * max(rows, columns) ** 0.5)
