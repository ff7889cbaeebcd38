"""Updates of rows in Triton: one program a row reads and writes the row, its gradient and its state once."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from memlayers.kernels.checks import Unsupported
from memlayers.kernels.triton_checks import accept_on_gpu, accept_range

MOST_COLUMNS = 4096  # widest row: one program holds all of it, as rules need its mean square


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
    _accept(values, rows, grad, mean, square)
    if len(rows) == 0:
        return
    width, (beta1, beta2) = values.shape[1], betas
    rates = rate / (1 - beta1**step), beta1, beta2, 1 / (1 - beta2**step), eps
    rowwise = square.shape[1] == 1 < width
    with torch.cuda.device_of(values):
        _adam[(len(rows),)](values, mean, square, rows, grad, width, *rates, rowwise, columns(width))


def adagrad_rows(values: Tensor, total: Tensor, rows: Tensor, grad: Tensor, *, rate: float, eps: float) -> None:
    """As memlayers.layers.updates.adagrad_rows."""
    _accept(values, rows, grad, total)
    _descend(values, total, rows, grad, rate, eps)


def sgd_rows(values: Tensor, rows: Tensor, grad: Tensor, *, rate: float) -> None:
    """As memlayers.layers.updates.sgd_rows."""
    _accept(values, rows, grad)
    _descend(values, None, rows, grad, rate, 0.0)


def _descend(values: Tensor, total: Tensor | None, rows: Tensor, grad: Tensor, rate: float, eps: float) -> None:
    width = values.shape[1]
    if len(rows):
        with torch.cuda.device_of(values):
            _step[(len(rows),)](values, total, rows, grad, width, rate, eps, total is not None, columns(width))


def columns(width: int) -> int:
    """Columns of the block that holds a row of this width: the next power of two."""
    return int(triton.next_power_of_2(width))


def accept_rows(values: Tensor, *state: Tensor) -> None:
    """Raises Unsupported for a table that kernels cannot update, or whose state is not float32 with as many rows."""
    accept_on_gpu("values", values, torch.float32, torch.bfloat16)
    if not values.is_contiguous() or values.shape[1] > MOST_COLUMNS or len(values) >= 2**31:
        shape = " x ".join(map(str, values.shape))
        raise Unsupported(f"values {shape}; accepted: contiguous, rows of up to {MOST_COLUMNS}, fewer than 2**31")
    for moment in state:
        accept_on_gpu("state", moment, torch.float32)
        if len(moment) != len(values) or moment.shape[1] not in (1, values.shape[1]) or not moment.is_contiguous():
            raise Unsupported(f"state {tuple(moment.shape)} of values {tuple(values.shape)}; accepted: as many rows")


def _accept(values: Tensor, rows: Tensor, grad: Tensor, *state: Tensor) -> None:
    accept_rows(values, *state)
    accept_on_gpu("grad", grad, values.dtype)
    accept_on_gpu("rows", rows, torch.int64)
    if grad.shape != (len(rows), values.shape[1]) or not (rows.is_contiguous() and grad.is_contiguous()):
        raise Unsupported(f"{len(rows)} rows and gradient {tuple(grad.shape)}; accepted: (u, d), without gaps")
    accept_range("rows", rows, len(values))


# Offsets into a table have 64 bits: rows times width may exceed 2**31.


@triton.jit
def descend(values, total, row, grad, within, at, width, rate, eps, HAS_TOTAL: tl.constexpr):
    """Update one row with its gradient in registers: row-wise Adagrad with HAS_TOTAL, else gradient descent."""
    scale = rate
    if HAS_TOTAL:
        summed = tl.load(total + row) + tl.sum(grad * grad) / width
        tl.store(total + row, summed)
        scale = rate / (tl.sqrt_rn(summed) + eps)
    place = values + row * width + at
    old = tl.load(place, mask=within, other=0.0).to(tl.float32)
    tl.store(place, (old - scale * grad).to(values.dtype.element_ty), mask=within)


@triton.jit
def _step(values, total, rows, grad, width, rate, eps, HAS_TOTAL: tl.constexpr, COLUMNS: tl.constexpr):
    program = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, COLUMNS)
    within = at < width
    gradient = tl.load(grad + program * width + at, mask=within, other=0.0).to(tl.float32)
    descend(values, total, tl.load(rows + program), gradient, within, at, width, rate, eps, HAS_TOTAL)


@triton.jit
def _adam(
    values,
    mean,
    square,
    rows,
    grad,
    width,
    rate,
    beta1,
    beta2,
    correct,
    eps,
    ROWWISE: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    row = tl.load(rows + program)
    at = tl.arange(0, COLUMNS)
    within = at < width
    gradient = tl.load(grad + program * width + at, mask=within, other=0.0).to(tl.float32)
    place = row * width + at
    first = tl.load(mean + place, mask=within, other=0.0)
    first += (gradient - first) * (1 - beta1)
    tl.store(mean + place, first, mask=within)
    if ROWWISE:
        second = tl.load(square + row) * beta2 + tl.sum(gradient * gradient) / width * (1 - beta2)
        tl.store(square + row, second)
        change = first / (tl.sqrt_rn(second * correct) + eps)
    else:
        seconds = tl.load(square + place, mask=within, other=0.0) * beta2 + gradient * gradient * (1 - beta2)
        tl.store(square + place, seconds, mask=within)
        change = first / (tl.sqrt_rn(seconds * correct) + eps)
    old = tl.load(values + place, mask=within, other=0.0).to(tl.float32)
    tl.store(values + place, (old - rate * change).to(values.dtype.element_ty), mask=within)
