"""Muon (Jordan et al. 2024) for matrices and for stacks of matrices, such as experts."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic polynomial, as in torch.optim.Muon


class Muon(Optimizer):
    """The update of torch.optim.Muon for each matrix of parameters (..., rows, columns), in float32 on a CPU.

    Not as published: queries, keys and values of attention are one matrix here, as are gate and up of a SwiGLU and the
    queries of all heads of a memory, so that the larger gradient among them takes more of the update.

    torch.optim.Muon takes single matrices only, and computes in bfloat16, which is up to ten times slower on processors
    without it.
    """

    def __init__(self, params: Iterable[nn.Parameter] | Iterable[dict[str, Any]], lr: float = 1e-3):
        super().__init__(params, {"lr": lr, "weight_decay": 0.0, "momentum": 0.95})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for stack in group["params"]:
                if stack.grad is None:
                    continue
                state = self.state[stack]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(stack)
                mean = state["momentum_buffer"].lerp_(stack.grad, 1 - group["momentum"])
                update = orthogonalized(stack.grad.lerp(mean, group["momentum"]))
                rows, columns = stack.shape[-2:]
                stack.mul_(1 - group["lr"] * group["weight_decay"])
                stack.add_(update, alpha=-group["lr"] * max(1, rows / columns) ** 0.5)


def orthogonalized(matrices: Tensor, steps: int = 5, eps: float = 1e-7) -> Tensor:
    """Approximate the nearest (semi-)orthogonal matrices (..., a, b) by Newton-Schulz iteration."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.float() if matrices.device.type == "cpu" else matrices.bfloat16()
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x
