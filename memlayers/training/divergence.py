"""Training that left the finite numbers: where, and what it leaves."""

import math
from typing import Any

import torch

from memlayers.model import Transformer, parameters_with_roles


class Diverged(FloatingPointError):
    """A run whose loss or parameters are not finite: `noticed` goes into its record."""

    def __init__(self, said: str, noticed: dict[str, Any]):
        super().__init__(said, noticed)
        self.noticed = noticed

    def __str__(self) -> str:
        return f"{self.args[0]}: lower optim.lr or optim.values.lr"


def noticed(model: Transformer, step: int, loss: float | None) -> dict[str, Any]:
    """The step whose loss was the first that is not finite, the loss where it was noticed, norms of all roles."""
    return {"step": step, "loss": None if loss is None else str(loss), "norms": norms(model)}


@torch.no_grad()
def norms(model: Transformer) -> dict[str, dict[str, float]]:
    """Of the parameters of each role, without those that are not finite, and how many of them are not."""
    squares: dict[str, float] = {}
    strange: dict[str, int] = {}
    for _, role, parameter in parameters_with_roles(model):
        finite = parameter.isfinite()
        squares[role] = squares.get(role, 0.0) + float(parameter[finite].double().square().sum())
        strange[role] = strange.get(role, 0) + int((~finite).sum())
    return {role: {"norm": math.sqrt(square), "not_finite": strange[role]} for role, square in squares.items()}


def is_finite(model: Transformer) -> bool:
    return all(bool(parameter.isfinite().all()) for _, _, parameter in parameters_with_roles(model))
