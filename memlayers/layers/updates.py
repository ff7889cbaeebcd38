"""How rows of a table are updated after they were read: in place, and the others keep value and state as they are.

rows (u,) are distinct, grad (u, d) belongs to them, state is float32 whatever the values are. A skipped step does
nothing to a row: moments do not decay, and nothing is made up for later.
"""

from collections.abc import Callable

from torch import Tensor


def mean_squares(grad: Tensor) -> Tensor:
    """(u, d) -> (u, 1). Of a table whose columns are on several devices, the mean over all of them is wanted."""
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
    """Adam (Kingma & Ba 2015, algorithm 1): values and mean (n, d); square (n, d), or (n, 1) with one for a row.

    Bias correction counts the steps of the table, not of the row (as torch.optim.SparseAdam does), so the first update
    of a row met late is (1 - b1) / sqrt(1 - b2) of a full one: 1.0 with betas 0.9 and 0.99, but 3.2 with 0.9 and 0.999.
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
    """Row-wise Adagrad (Duchi et al. 2011, with one sum for a row as in FBGEMM): total (n, 1) of mean squares."""
    grad = grad.float()
    summed = total.index_select(0, rows).add_(squares(grad))
    total.index_copy_(0, rows, summed)
    _subtract(values, rows, grad / summed.sqrt().add_(eps), rate)


def sgd_rows(values: Tensor, rows: Tensor, grad: Tensor, *, rate: float) -> None:
    """values -= rate * grad."""
    _subtract(values, rows, grad.float(), rate)


def _subtract(values: Tensor, rows: Tensor, change: Tensor, rate: float) -> None:
    new = values.index_select(0, rows).float().sub_(change, alpha=rate)
    values.index_copy_(0, rows, new.to(values.dtype))
