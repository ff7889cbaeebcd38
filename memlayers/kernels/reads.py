"""Weighted reads in C: see reads.c and reads_back.c."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import increment_version

from memlayers.kernels.build import library
from memlayers.kernels.checks import Unsupported, accept, accept_indices, accept_table, is_bf16
from memlayers.kernels.updates import huge_pages
from memlayers.layers.pool import RowUpdate


def weighted_read(
    values: Tensor, slots: Tensor, weights: Tensor, *, sparse: bool = True, update: RowUpdate | None = None
) -> Tensor:
    """As memlayers.layers.pool.weighted_read, summed in float32 whatever the values are.

    Backward sorts the reads by row and then visits each row once, for its gradient and those of the weights. With an
    `update` it updates the row on that visit, with the same digits as an optimizer step, and returns no gradient of
    rows.
    """
    if not sparse:
        raise Unsupported("a dense gradient of values; accepted: sparse=True")
    accept_table(values)
    accept("weights", weights, torch.float32)
    if slots.dtype != torch.int64 or slots.shape != weights.shape or slots.numel() >= 2**32:
        shapes = f"slots {tuple(slots.shape)} of {slots.dtype} and weights {tuple(weights.shape)}"
        raise Unsupported(f"{shapes}; accepted: the same shape, slots of torch.int64")
    read: Tensor = _Read.apply(values, slots, weights, update)
    return read


class _Read(torch.autograd.Function):
    """Weighted read with its gradients: slots and weights (t, r), values (n, d)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, slots: Tensor, weights: Tensor, update: RowUpdate | None) -> Tensor:
        slots, weights = slots.contiguous(), weights.contiguous()
        (t, r), d = slots.shape, values.shape[1]
        read = weights.new_empty(t, d)
        table = values.data_ptr(), is_bf16(values), len(values), d
        reads = slots.data_ptr(), weights.data_ptr(), t, r
        if library().read_forward(*table, *reads, read.data_ptr(), torch.get_num_threads()):
            accept_indices("slots", slots, len(values))
        ctx.save_for_backward(values, slots, weights)
        ctx.update = update
        return read

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor, None]:
        values, slots, weights = ctx.saved_tensors
        (n, d), count, grad = values.shape, slots.numel(), grad.contiguous()
        order, rows = (torch.empty(count, dtype=torch.int64) for _ in range(2))
        first = torch.empty(count + 1, dtype=torch.int64)
        sorting = order.data_ptr(), rows.data_ptr(), first.data_ptr()
        distinct = library().sort_reads(slots.data_ptr(), count, n, *sorting)
        if distinct < 0:
            raise MemoryError(f"{count} reads do not fit into memory twice")
        grad_weights = torch.empty_like(weights)
        reads = values.data_ptr(), is_bf16(values), d, *sorting, distinct, slots.shape[1]
        gradients = weights.data_ptr(), grad.data_ptr(), grad_weights.data_ptr()
        if ctx.update and ctx.needs_input_grad[0]:
            total, rate, eps = ctx.update()
            state = [] if total is None else [total]
            pointer = total.data_ptr() if state else None
            library().read_update(*reads, *gradients, pointer, rate, eps, torch.get_num_threads())
            increment_version([values, *state])  # autograd then refuses the backward of another read of the old rows
            return None, None, grad_weights, None
        grad_rows = huge_pages(values.new_empty(distinct, d))
        library().read_backward(*reads, *gradients, grad_rows.data_ptr(), torch.get_num_threads())
        index = rows[None, :distinct]
        row_grad = torch.sparse_coo_tensor(index, grad_rows, (n, d), is_coalesced=True, check_invariants=False)
        return row_grad, None, grad_weights, None
