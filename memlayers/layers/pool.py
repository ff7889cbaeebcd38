"""The value table: rows that are read by weight, and gradients that touch the rows that were read and no others."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memlayers.layers.feedforward import Cost, Workload

# What backward needs to move rows: sums of squares (n, 1) or none, learning rate, eps. Asking counts a step.
RowUpdate = Callable[[], tuple[Tensor | None, float, float]]


class MemoryPool(nn.Module):
    """A table of num_slots values of width d_value, uninitialised. Layers share a pool by being handed the same object.

    slots    7  2     weights  .8  .2     read   .8 * values[7] + .2 * values[2]
    """

    param_roles: ClassVar[dict[str, str]] = {"values": "memory_value"}

    def __init__(
        self,
        num_slots: int,
        d_value: int,
        *,
        sparse: bool = True,
        dtype: torch.dtype = torch.float32,
        read: Callable[..., Tensor] | None = None,  # weighted_read, or a faster one
    ):
        super().__init__()
        self.values = nn.Parameter(torch.empty(num_slots, d_value, dtype=dtype))
        self.d_value, self.sparse, self.read = d_value, sparse, read or weighted_read
        self.update: RowUpdate | None = None
        self.is_silent = False  # then all that is read is zero: recall/usage.py asks what a model knows without

    def forward(self, slots: Tensor, weights: Tensor) -> Tensor:
        """Weighted sums of rows: slots (t, r) and weights (t, r) -> (t, d_value) in the dtype of the weights.

        With an `update`, which an optimizer sets for the length of a training, backward moves the rows while it visits
        them: values then have no gradient to clip, to add up or to look at. A read that cannot do so leaves the
        gradient, and with it the same step, to the optimizer.
        """
        if self.is_silent:
            return weights.new_zeros(len(slots), self.d_value)
        return self.read(self.values, slots, weights, sparse=self.sparse, update=self.update)

    def rows(self, slots: Tensor) -> Tensor:
        """The rows themselves, for layers that do not just add them up: slots (...) -> (..., d_value)."""
        if self.is_silent:
            return self.values.new_zeros(*slots.shape, self.d_value)
        return F.embedding(slots, self.values, sparse=self.sparse)

    def read_cost(self, reads: int, work: Workload, learned: bool = True) -> Cost:
        """Of `reads` rows a token, without the table itself: the sum, its gradients, and the sort behind them.

        Weights that are not learned have no gradient.
        """
        size = reads * self.d_value
        sort = reads * math.ceil(math.log2(max(2, reads * work.tokens))) if self.sparse else 0
        return Cost(2 * size, (4 if learned else 2) * size + sort, size * self.values.element_size())


def weighted_read(
    values: Tensor, slots: Tensor, weights: Tensor, *, sparse: bool = True, update: RowUpdate | None = None
) -> Tensor:
    """sum over r of weights[t, r] * values[slots[t, r]]: (t, d_value). An `update` is left to the optimizer's step.

    With sparse=True the gradient of `values` is a sparse tensor of the rows that were read, each once and in order.
    (Autograd drops the mark that says so, is_coalesced, where it stores the gradient in .grad.)
    """
    per_read = weights.to(values.dtype)
    if not sparse:
        return F.embedding_bag(slots, values, per_sample_weights=per_read, mode="sum").to(weights.dtype)
    read = F.embedding_bag(slots, values.detach(), per_sample_weights=per_read, mode="sum")
    return _RowGradient.apply(read.to(weights.dtype), values, slots, weights.detach())


class _RowGradient(torch.autograd.Function):
    """Passes on what was read; its backward adds the gradient of the rows.

    The gradient of row i is a weighted sum again: of the output gradients of the tokens that read it. So sorting
    the reads by row turns the backward into another bag, without atomics and without a buffer of the table's size
    (Memory Layers at Scale, section 3.2, "reverse indices").
    """

    @staticmethod
    def forward(ctx: Any, read: Tensor, values: Tensor, slots: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(slots, weights)
        ctx.table = values.shape, values.dtype
        return read.view_as(read)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        if not ctx.needs_input_grad[1]:
            return grad, None, None, None
        slots, weights = ctx.saved_tensors
        shape, dtype = ctx.table
        ordered, order = slots.flatten().sort()
        rows, counts = ordered.unique_consecutive(return_counts=True)
        token = order // max(1, slots.shape[1])
        bags = F.embedding_bag(
            token, grad, counts.cumsum(0) - counts, per_sample_weights=weights.flatten()[order], mode="sum"
        )
        row_grad = torch.sparse_coo_tensor(rows[None], bags.to(dtype), shape, is_coalesced=True, check_invariants=False)
        return grad, row_grad, None, None
