"""Backward of a weighted read with the update of rows, in Triton: each row that was read is visited once.

Reads are sorted by row, and the sorted ones cut into chunks of CHUNK. A program takes the reads of one row in one
chunk: it holds the row in registers, sums its gradient and writes the gradients of the weights. A row whose reads lie
in one chunk is updated at once. A row that crosses a border leaves a partial sum in each chunk, and a second kernel
adds them in order. So many programs sum a slot that thousands of tokens read, and still every sum has one order,
without atomics. Nothing waits for the GPU: each program finds out whether a row begins at its read, and where it ends.

    sorted rows   2 2 2 5 | 5 5 5 5 | 5 7 7 9      2, 7 and 9 in one chunk each; 5: a partial sum in each of three
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from memlayers.kernels.triton_updates import columns, descend

CHUNK = 64  # most reads that one program sums, in order


def backward_with_update(
    values: Tensor,
    slots: Tensor,
    weights: Tensor,
    grad: Tensor,
    total: Tensor | None,
    rate: float,
    eps: float,
    chunk: int = CHUNK,
) -> Tensor:
    """Update rows of values (n, d) in place, by row-wise Adagrad with sums of squares `total` (n, 1), or by gradient
    descent if that is None. grad (t, d) is the gradient of what was read. Returns the gradient of the weights (t, r),
    at the old rows.
    """
    (t, r), width = slots.shape, values.shape[1]
    grad_weights = torch.empty_like(weights, memory_format=torch.contiguous_format)
    count = t * r
    if count == 0:
        return grad_weights
    ordered, order = slots.flatten().to(torch.int32).sort(stable=True)  # half the bytes of int64 to sort
    partial = grad.new_empty(triton.cdiv(count, chunk), 2, width, dtype=torch.float32)
    sorting = ordered, order, count
    rule = total, width, rate, eps
    fixed = total is not None, chunk, columns(width)
    with torch.cuda.device_of(values):
        _by_chunk[(count,)](
            values, *rule, *sorting, weights.contiguous(), grad.contiguous(), grad_weights, partial, r, *fixed
        )
        _over_borders[(len(partial),)](values, *rule, *sorting, partial, *fixed)
    return grad_weights


@triton.jit
def _row(ordered, at, count):
    """The row of the sorted read `at`; -1 beyond both ends."""
    return tl.load(ordered + at, mask=(at >= 0) & (at < count), other=-1)


@triton.jit
def _by_chunk(
    values,
    total,
    width,
    rate,
    eps,
    ordered,
    order,
    count,
    weights,
    grad,
    grad_weights,
    partial,
    r,
    HAS_TOTAL: tl.constexpr,
    CHUNK: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    begin = tl.program_id(0).to(tl.int64)
    row = _row(ordered, begin, count)
    goes_on = _row(ordered, begin - 1, count) == row  # the read before is of the same row
    chunk = begin // CHUNK
    if (begin % CHUNK == 0) | (goes_on == 0):
        at = tl.arange(0, COLUMNS)
        within = at < width
        held = tl.load(values + row.to(tl.int64) * width + at, mask=within, other=0.0).to(tl.float32)
        gradient = tl.zeros((COLUMNS,), tl.float32)
        end = tl.minimum((chunk + 1) * CHUNK, count)
        read = begin
        while (read < end) & (_row(ordered, read, count) == row):
            place = tl.load(order + read)
            upstream = tl.load(grad + (place // r).to(tl.int64) * width + at, mask=within, other=0.0).to(tl.float32)
            gradient += tl.load(weights + place).to(tl.float32) * upstream
            tl.store(grad_weights + place, tl.sum(held * upstream))
            read += 1
        crosses = _row(ordered, end, count) == row
        if goes_on:
            tl.store(partial + 2 * chunk * width + at, gradient, mask=within)
        elif crosses:
            tl.store(partial + (2 * chunk + 1) * width + at, gradient, mask=within)
        else:
            descend(values, total, row.to(tl.int64), gradient, within, at, width, rate, eps, HAS_TOTAL)


@triton.jit
def _over_borders(
    values,
    total,
    width,
    rate,
    eps,
    ordered,
    order,
    count,
    partial,
    HAS_TOTAL: tl.constexpr,
    CHUNK: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Update the row that begins in this chunk and goes on in the next, if there is one."""
    chunk = tl.program_id(0).to(tl.int64)
    begin, end = chunk * CHUNK, (chunk + 1) * CHUNK
    row = _row(ordered, end - 1, count)
    fills = _row(ordered, begin - 1, count) == row  # it began before this chunk
    if (row >= 0) & (fills == 0) & (_row(ordered, end, count) == row):
        at = tl.arange(0, COLUMNS)
        within = at < width
        gradient = tl.load(partial + (2 * chunk + 1) * width + at, mask=within, other=0.0)
        while _row(ordered, end, count) == row:
            gradient += tl.load(partial + 2 * (end // CHUNK) * width + at, mask=within, other=0.0)
            end += CHUNK
        descend(values, total, row.to(tl.int64), gradient, within, at, width, rate, eps, HAS_TOTAL)
