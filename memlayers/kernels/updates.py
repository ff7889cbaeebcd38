"""Updates of rows in C: see updates.c."""

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from memlayers.kernels.build import library
from memlayers.kernels.checks import Unsupported, accept, accept_indices, accept_table, is_bf16


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
) -> None:
    """As memlayers.layers.updates.adam_rows."""
    table, others = _update(values, rows, grad, mean, square)
    rate, correct = rate / (1 - betas[0] ** step), 1 / (1 - betas[1] ** step)
    rowwise = square.shape[1] == 1 < values.shape[1]
    library().adam_rows(*table, *others, rowwise, rate, *betas, correct, eps, torch.get_num_threads())


def adagrad_rows(values: Tensor, total: Tensor, rows: Tensor, grad: Tensor, *, rate: float, eps: float) -> None:
    """As memlayers.layers.updates.adagrad_rows."""
    table, others = _update(values, rows, grad, total)
    library().adagrad_rows(*table, *others, rate, eps, torch.get_num_threads())


def sgd_rows(values: Tensor, rows: Tensor, grad: Tensor, *, rate: float) -> None:
    """As memlayers.layers.updates.sgd_rows."""
    table, others = _update(values, rows, grad)
    library().sgd_rows(*table, *others, rate, torch.get_num_threads())


def huge_pages(table: Tensor) -> Tensor:
    """Ask Linux for huge pages for a table whose memory is not yet touched; returns the table."""
    if table.device.type == "cpu":
        library().huge_pages(table.data_ptr(), table.numel() * table.element_size())
    return table


def _update(values: Tensor, rows: Tensor, grad: Tensor, *state: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Check the tensors; return the C arguments that updates share: of the table, and of state, rows and gradient."""
    accept_table(values)
    accept("grad", grad, values.dtype)
    for moment in state:
        accept("state", moment, torch.float32)
        if len(moment) != len(values) or moment.shape[1] not in (1, values.shape[1]) or not moment.is_contiguous():
            raise Unsupported(f"state {tuple(moment.shape)} of values {tuple(values.shape)}; accepted: as many rows")
    if grad.shape != (len(rows), values.shape[1]) or not (rows.is_contiguous() and grad.is_contiguous()):
        raise Unsupported(f"{len(rows)} rows and gradient {tuple(grad.shape)}; accepted: (u, d), without gaps")
    accept("rows", rows, torch.int64)
    accept_indices("rows", rows, len(values))
    increment_version([values, *state])  # autograd then refuses a later backward through the old values
    pointers = (tensor.data_ptr() for tensor in (*state, rows, grad))
    return (values.data_ptr(), is_bf16(values), values.shape[1]), (*pointers, len(rows))
