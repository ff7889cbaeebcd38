"""Divergence of training: when a loss or parameter stopped being finite, and what the record says of it."""

import math
from typing import Any

import torch

from memlayers.model import Transformer, parameters_with_roles


class Diverged(FloatingPointError):
    """The loss or the parameters of a run are not finite; `noticed` goes into its record."""

    def __init__(self, message: str, noticed: dict[str, Any]):
        super().__init__(message, noticed)
        self.noticed = noticed

    def __str__(self) -> str:
        return f"{self.args[0]}: lower optim.lr or optim.values.lr"


def noticed(model: Transformer, step: int, loss: float | None) -> dict[str, Any]:
    """What a record says of a divergence: the first step with a loss that is not finite, the loss when that was
    noticed, and the norms of all roles.
    """
    return {"step": step, "loss": None if loss is None else str(loss), "norms": norms(model)}


@torch.no_grad()
def norms(model: Transformer) -> dict[str, dict[str, float]]:
    """By role: the Euclidean norm of all finite parameters, and how many are not finite."""
    squares: dict[str, float] = {}
    not_finite: dict[str, int] = {}
    for _, role, parameter in parameters_with_roles(model):
        finite = parameter.isfinite()
        squares[role] = squares.get(role, 0.0) + float(parameter[finite].double().square().sum())
        not_finite[role] = not_finite.get(role, 0) + int((~finite).sum())
    return {role: {"norm": math.sqrt(square), "not_finite": not_finite[role]} for role, square in squares.items()}


def is_finite(model: Transformer) -> bool:
    return all(bool(parameter.isfinite().all()) for _, _, parameter in parameters_with_roles(model))
