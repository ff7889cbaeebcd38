"""Weighted reads in Triton, for a GPU. Tested with Triton's interpreter on the CPU.

TRITON_INTERPRET=1 is read when triton is first imported, which Lightning does: set it before Python starts.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import increment_version
from torch.nn import functional as F

from memlayers.kernels.checks import Unsupported
from memlayers.kernels.triton_backward import backward_with_update
from memlayers.kernels.triton_checks import accept_on_gpu, accept_range
from memlayers.kernels.triton_updates import accept_rows
from memlayers.layers.pool import RowUpdate

MOST_COLUMNS = 1024  # most columns that one program holds


def weighted_read(
    values: Tensor, slots: Tensor, weights: Tensor, *, sparse: bool = True, update: RowUpdate | None = None
) -> Tensor:
    """As memlayers.layers.pool.weighted_read, summed in float32 whatever values and weights are.

    No two programs add to the same number, so sums have one order. With an `update` backward updates the rows
    (triton_backward.py) and returns no gradient of them.
    Raises Unsupported for tensors that are not on a GPU, unless Triton interprets, and for other dtypes.
    """
    if not sparse:
        raise Unsupported("a dense gradient of values; accepted: sparse=True")
    accept_on_gpu("values", values, torch.float32, torch.bfloat16)
    accept_on_gpu("slots", slots, torch.int64)
    accept_on_gpu("weights", weights, torch.float32, torch.bfloat16)
    if not values.device == slots.device == weights.device:
        raise Unsupported(f"tensors on {values.device}, {slots.device} and {weights.device}; accepted: one device")
    if slots.shape != weights.shape or slots.ndim != 2 or slots.numel() >= 2**31:
        shapes = f"slots {tuple(slots.shape)} and weights {tuple(weights.shape)}"
        raise Unsupported(f"{shapes}; accepted: the same shape (t, r), fewer than 2**31 reads")
    accept_range("slots", slots, len(values))
    if update:
        accept_rows(values)
    read: Tensor = _Read.apply(values, slots, weights, update)
    return read


class _Read(torch.autograd.Function):
    """Weighted read with its gradients: slots and weights (t, r), values (n, d)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, slots: Tensor, weights: Tensor, update: RowUpdate | None) -> Tensor:
        ctx.save_for_backward(values, slots, weights)
        ctx.update = update
        t, r = slots.shape
        first = torch.arange(t + 1, device=slots.device) * r
        return _sum_bags(values, slots.flatten(), weights.flatten(), first, weights.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None, None]:
        values, slots, weights = ctx.saved_tensors
        if ctx.update and ctx.needs_input_grad[0]:
            total, rate, eps = ctx.update()
            weight_grad = backward_with_update(values, slots, weights, grad, total, rate, eps)
            # Autograd then refuses another read of old rows.
            increment_version([values] if total is None else [values, total])
            return None, None, weight_grad, None
        (n, d), r = values.shape, slots.shape[1]
        grad_rows = grad_weights = None
        if ctx.needs_input_grad[0]:
            ordered, order = slots.flatten().sort(stable=True)
            rows, counts = ordered.unique_consecutive(return_counts=True)
            first = F.pad(counts.cumsum(0), (1, 0))
            sums = _sum_bags(grad, order // r, weights.flatten()[order], first, values.dtype)
            grad_rows = torch.sparse_coo_tensor(rows[None], sums, (n, d), is_coalesced=True, check_invariants=False)
        if ctx.needs_input_grad[2]:
            grad_weights = torch.empty_like(weights, memory_format=torch.contiguous_format)
            arguments = values, *values.stride(), slots.flatten(), grad, *grad.stride(), r, d, _columns(d)
            with torch.cuda.device_of(values):
                _dot_rows[slots.numel(),](grad_weights, *arguments)
        return grad_rows, None, grad_weights, None


def _sum_bags(source: Tensor, index: Tensor, weights: Tensor, first: Tensor, dtype: torch.dtype) -> Tensor:
    """(bags, width): bag i is the sum over j in first[i] .. first[i + 1] - 1 of weights[j] * source[index[j]]."""
    bags, width = len(first) - 1, source.shape[1]
    out = source.new_empty(bags, width, dtype=dtype)
    columns = _columns(width)
    grid = bags, triton.cdiv(width, columns)
    with torch.cuda.device_of(source):  # Triton launches on the current GPU, wherever tensors are
        _sum_rows[grid](out, source, *source.stride(), index, weights, first, width, columns)
    return out


def _columns(width: int) -> int:
    return min(MOST_COLUMNS, triton.next_power_of_2(width))


# Offsets into a table have 64 bits: rows times width may exceed 2**31.


@triton.jit
def _sum_rows(out, source, to_row, to_column, index, weights, first, width, COLUMNS: tl.constexpr):
    bag = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < width
    total = tl.zeros((COLUMNS,), tl.float32)
    for j in range(tl.load(first + bag), tl.load(first + bag + 1)):
        row = tl.load(source + tl.load(index + j) * to_row + columns * to_column, mask=inside, other=0.0)
        total += tl.load(weights + j).to(tl.float32) * row.to(tl.float32)
    tl.store(out + bag * width + columns, total, mask=inside)


@triton.jit
def _dot_rows(out, source, to_row, to_column, index, grad, to_token, to_entry, r, width, COLUMNS: tl.constexpr):
    j = tl.program_id(0).to(tl.int64)
    row, token = source + tl.load(index + j) * to_row, grad + j // r * to_token
    total = tl.zeros((COLUMNS,), tl.float32)
    for begin in range(0, width, COLUMNS):
        columns = begin + tl.arange(0, COLUMNS).to(tl.int64)
        inside = columns < width
        left = tl.load(row + columns * to_column, mask=inside, other=0.0).to(tl.float32)
        total += left * tl.load(token + columns * to_entry, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + j, tl.sum(total))
