"""Sparse in-place updates of a table: rows that were read change, all others keep their values and state.

rows (u,) are distinct, grad (u, d) is their gradient, state is float32 whatever the dtype of the values. A step in
which a row is not read does nothing to it: moments do not decay, then or later.
"""

from collections.abc import Callable

from torch import Tensor


def mean_squares(grad: Tensor) -> Tensor:
    """(u, d) -> mean squares of rows (u, 1). Over all processes for sharded tables (training/ranks.py)."""
    return grad.square().mean(dim=1, keepdim=True)


def adam_rows(
    values: Tensor,
    mean: Tensor,
    square: Tensor,
    rows: Tensor,
    grad: Tensor,
    *,
    rate: float,
    betas: tuple[float, float],
    eps: float,
    step: int,
    squares: Callable[[Tensor], Tensor] = mean_squares,
) -> None:
    """Adam (Kingma & Ba 2015, algorithm 1): values and mean (n, d); square (n, d), or (n, 1) for one a row.

    Bias correction counts the steps of the table, not of the row (as torch.optim.SparseAdam does). So the first update
    of a row that is first read late is (1 - b1) / sqrt(1 - b2) of a full one: 1.0 with betas 0.9 and 0.99, but 3.2 with
    0.9 and 0.999.
    """
    beta1, beta2 = betas
    grad = grad.float()
    squared = grad.square() if square.shape == values.shape else squares(grad)
    first = mean.index_select(0, rows).lerp_(grad, 1 - beta1)
    second = square.index_select(0, rows).mul_(beta2).add_(squared, alpha=1 - beta2)
    mean.index_copy_(0, rows, first)
    square.index_copy_(0, rows, second)
    scale = (second / (1 - beta2**step)).sqrt_().add_(eps)
    _subtract(values, rows, first / scale, rate / (1 - beta1**step))


def adagrad_rows(
    values: Tensor,
    total: Tensor,
    rows: Tensor,
    grad: Tensor,
    *,
    rate: float,
    eps: float,
    squares: Callable[[Tensor], Tensor] = mean_squares,
) -> None:
    """Row-wise Adagrad (Duchi et al. 2011, with one sum a row as in FBGEMM): total (n, 1) sums the mean squares."""
    grad = grad.float()
    summed = total.index_select(0, rows).add_(squares(grad))
    total.index_copy_(0, rows, summed)
    _subtract(values, rows, grad / summed.sqrt().add_(eps), rate)


def sgd_rows(values: Tensor, rows: Tensor, grad: Tensor, *, rate: float) -> None:
    """values[rows] -= rate * grad."""
    _subtract(values, rows, grad.float(), rate)


def _subtract(values: Tensor, rows: Tensor, change: Tensor, rate: float) -> None:
    new = values.index_select(0, rows).float().sub_(change, alpha=rate)
    values.index_copy_(0, rows, new.to(values.dtype))
