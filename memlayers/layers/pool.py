"""The value table: weighted sums of rows, whose gradients hold only the rows that were read."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from memlayers.layers.feedforward import Cost, Workload

# Returns what backward needs to update rows: sums of squares (n, 1) or None, learning rate, eps. A call counts a step.
RowUpdate = Callable[[], tuple[Tensor | None, float, float]]


class MemoryPool(nn.Module):
    """A table of num_slots values of width d_value, uninitialised. Layers that are given the same object share it.

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
        self.is_silent = False  # true: every read is zero; recall/usage.py measures recall without the table

    def forward(self, slots: Tensor, weights: Tensor) -> Tensor:
        """Weighted sums of rows: slots and weights (..., r) -> (..., d_value) in the dtype of the weights.

        With an `update`, which an optimizer sets during training, backward updates rows as it visits them: values then
        have no gradient to clip, accumulate or inspect. A read that cannot do so leaves the gradient, and with it the
        same step, to the optimizer.
        """
        shape = *weights.shape[:-1], self.d_value
        if self.is_silent:
            return weights.new_zeros(shape)
        return self.sums(slots.flatten(0, -2), weights.flatten(0, -2)).view(shape)

    def sums(self, slots: Tensor, weights: Tensor) -> Tensor:
        """The same of slots and weights (t, r): (t, d_value)."""
        return self.read(self.values, slots, weights, sparse=self.sparse, update=self.update)

    def rows(self, slots: Tensor) -> Tensor:
        """slots (...) -> their rows (..., d_value), for layers that need more than a weighted sum."""
        if self.is_silent:
            return self.values.new_zeros(*slots.shape, self.d_value)
        return F.embedding(slots, self.values, sparse=self.sparse)

    def read_cost(self, reads: int, work: Workload, learned: bool = True) -> Cost:
        """The cost of reading `reads` rows per token: their sum, the gradients of rows and of learned weights, and
        backward's sort; without the table's params.
        """
        size = reads * self.d_value
        sort = reads * math.ceil(math.log2(max(2, reads * work.tokens))) if self.sparse else 0
        return Cost(2 * size, (4 if learned else 2) * size + sort, size * self.values.element_size())


def readers(model: nn.Module) -> list[Any]:
    """The layers of any model that read a pool, which is their `pool`."""
    return [layer for layer in model.modules() if isinstance(getattr(layer, "pool", None), MemoryPool)]


def weighted_read(
    values: Tensor, slots: Tensor, weights: Tensor, *, sparse: bool = True, update: RowUpdate | None = None
) -> Tensor:
    """sum over r of weights[t, r] * values[slots[t, r]]: (t, d_value). `update` is left to the optimizer.

    With sparse=True the gradient of `values` is a sparse tensor of the rows that were read, each once and in order. It
    comes from _RowGradient, which passes the sum on; that of the weights from the bag, whose values are detached.
    """
    per_read = weights.to(values.dtype)
    if not sparse:
        return F.embedding_bag(slots, values, per_sample_weights=per_read, mode="sum").to(weights.dtype)
    read = F.embedding_bag(slots, values.detach(), per_sample_weights=per_read, mode="sum")
    return _RowGradient.apply(read.to(weights.dtype), values, slots, weights.detach())


class _RowGradient(torch.autograd.Function):
    """Identity on what was read; its backward adds the gradient of the rows.

    The gradient of row i is the weighted sum of the output gradients of the tokens that read it. Sorting the reads by
    row turns backward into another embedding bag, without atomics and without a buffer of the table's size (Memory
    Layers at Scale, section 3.2, "reverse indices").
    """

    @staticmethod
    def forward(ctx: Any, read: Tensor, values: Tensor, slots: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(slots, weights)
        ctx.table = values.shape, values.dtype
        return read.view_as(read)

    @staticmethod
    @once_differentiable  # weights are saved without their graph
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
