"""The functions of layers/ in C: for float32 on the CPU, values also in bfloat16, on as many threads as torch has.

Each raises Unsupported, in one line and before it changes anything, for tensors that it cannot take.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import increment_version

from memlayers.kernels.build import library
from memlayers.layers import pool

MOST_TOPK = 256
MOST_KEYS = 2**16  # a half: slots have 32 bits
MOST_WIDTH = 16_384  # floats of a row: two of them stand on the stack


class Unsupported(ValueError):
    """The kernels cannot take these tensors."""


def product_key_topk(query: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As memlayers.layers.product_keys.product_key_topk; of equal scores the lower keys first.

    No half score is written to memory, and backward touches the k chosen keys, not all n.
    """
    _accept("query", query, torch.float32)
    _accept("keys", keys, torch.float32)
    n, c = keys.shape[2:]
    if not 1 <= k <= min(n, MOST_TOPK):
        raise Unsupported(f"topk={k}; accepted: 1 to {min(n, MOST_TOPK)}")
    if keys.shape != (query.shape[1], 2, n, query.shape[3]) or n > MOST_KEYS or c > MOST_WIDTH:
        shapes = f"query {tuple(query.shape)} and keys {tuple(keys.shape)}"
        raise Unsupported(f"{shapes}; accepted: (t, h, 2, c) and (h, 2, n, c), n up to {MOST_KEYS}")
    scores, slots = _TopK.apply(query, keys, k)
    return scores, slots


class _TopK(torch.autograd.Function):
    """Letters as in product_keys: t tokens, h heads, c half-key width, n keys a half."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
        query, keys = query.contiguous(), keys.contiguous()
        (t, h, _, c), n = query.shape, keys.shape[2]
        scores = query.new_empty(t, h, k)
        slots = torch.empty_like(scores, dtype=torch.int64)
        pointers = query.data_ptr(), keys.data_ptr()
        out = scores.data_ptr(), slots.data_ptr()
        if library().topk_forward(*pointers, t, h, c, n, k, *out, torch.get_num_threads()):
            raise MemoryError("the lists of a few tokens do not fit into memory")
        ctx.save_for_backward(query, keys, slots)
        ctx.mark_non_differentiable(slots)
        return scores, slots

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None]:
        query, keys, slots = ctx.saved_tensors
        (t, h, _, c), n, grad = query.shape, keys.shape[2], grad.contiguous()
        grad_query, grad_keys = torch.empty_like(query), torch.zeros_like(keys)
        pointers = grad.data_ptr(), slots.data_ptr(), query.data_ptr(), keys.data_ptr()
        out = grad_query.data_ptr(), grad_keys.data_ptr()
        library().topk_backward(*pointers, t, h, c, n, slots.shape[-1], *out, torch.get_num_threads())
        return grad_query, grad_keys, None


def weighted_read(values: Tensor, slots: Tensor, weights: Tensor, *, sparse: bool = True) -> Tensor:
    """As memlayers.layers.pool.weighted_read, summed in float32 whatever the values are.

    Backward sorts the reads by row once and then visits each row once, for its own gradient and for those of the
    weights. A dense gradient is the reference's.
    """
    if not sparse:
        return pool.weighted_read(values, slots, weights, sparse=False)
    _accept_table(values)
    _accept("weights", weights, torch.float32)
    if slots.dtype != torch.int64 or slots.shape != weights.shape or slots.numel() >= 2**32:
        shapes = f"slots {tuple(slots.shape)} of {slots.dtype} and weights {tuple(weights.shape)}"
        raise Unsupported(f"{shapes}; accepted: the same shape, slots of torch.int64")
    read: Tensor = _Read.apply(values, slots, weights)
    return read


class _Read(torch.autograd.Function):
    """slots and weights (t, r) of values (n, d)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, slots: Tensor, weights: Tensor) -> Tensor:
        slots, weights = slots.contiguous(), weights.contiguous()
        (t, r), d = slots.shape, values.shape[1]
        read = weights.new_empty(t, d)
        table = values.data_ptr(), _is_bf16(values), len(values), d
        reads = slots.data_ptr(), weights.data_ptr(), t, r
        if library().read_forward(*table, *reads, read.data_ptr(), torch.get_num_threads()):
            _accept_indices("slots", slots, len(values))
        ctx.save_for_backward(values, slots, weights)
        return read

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor]:
        values, slots, weights = ctx.saved_tensors
        (n, d), count, grad = values.shape, slots.numel(), grad.contiguous()
        order, rows = torch.empty(2, count, dtype=torch.int64)
        first = torch.empty(count + 1, dtype=torch.int64)
        sorting = order.data_ptr(), rows.data_ptr(), first.data_ptr()
        found = library().sort_reads(slots.data_ptr(), count, n, *sorting)
        if found < 0:
            raise MemoryError(f"{count} reads do not fit into memory twice")
        grad_weights, grad_rows = torch.empty_like(weights), values.new_empty(found, d)
        library().read_backward(
            *(values.data_ptr(), _is_bf16(values), d, *sorting, found, slots.shape[1]),
            *(weights.data_ptr(), grad.data_ptr(), grad_weights.data_ptr(), grad_rows.data_ptr()),
            torch.get_num_threads(),
        )
        index = rows[None, :found]
        row_grad = torch.sparse_coo_tensor(index, grad_rows, (n, d), is_coalesced=True, check_invariants=False)
        return row_grad, None, grad_weights


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
    table, own = _update(values, rows, grad, mean, square)
    rate, correct = rate / (1 - betas[0] ** step), 1 / (1 - betas[1] ** step)
    rowwise = square.shape[1] == 1 < values.shape[1]
    library().adam_rows(*table, *own, rowwise, rate, *betas, correct, eps, torch.get_num_threads())


def adagrad_rows(values: Tensor, total: Tensor, rows: Tensor, grad: Tensor, *, rate: float, eps: float) -> None:
    """As memlayers.layers.updates.adagrad_rows."""
    table, own = _update(values, rows, grad, total)
    library().adagrad_rows(*table, *own, rate, eps, torch.get_num_threads())


def sgd_rows(values: Tensor, rows: Tensor, grad: Tensor, *, rate: float) -> None:
    """As memlayers.layers.updates.sgd_rows."""
    table, own = _update(values, rows, grad)
    library().sgd_rows(*table, *own, rate, torch.get_num_threads())


def huge_pages(table: Tensor) -> Tensor:
    """The table, whose memory, not yet touched, is asked to come in huge pages where Linux has them."""
    if table.device.type == "cpu":
        library().huge_pages(table.data_ptr(), table.numel() * table.element_size())
    return table


def _update(values: Tensor, rows: Tensor, grad: Tensor, *state: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What every update passes on: the table, then its state, rows and gradient, and how many rows there are."""
    _accept_table(values)
    _accept("grad", grad, values.dtype)
    for one in state:
        _accept("state", one, torch.float32)
        if len(one) != len(values) or one.shape[1] not in (1, values.shape[1]) or not one.is_contiguous():
            raise Unsupported(f"state {tuple(one.shape)} of values {tuple(values.shape)}; accepted: as many rows")
    if grad.shape != (len(rows), values.shape[1]) or not (rows.is_contiguous() and grad.is_contiguous()):
        raise Unsupported(f"{len(rows)} rows and gradient {tuple(grad.shape)}; accepted: (u, d), without gaps")
    _accept_indices("rows", rows, len(values))
    increment_version([values, *state])  # so that a later backward through the old ones is refused
    pointers = (one.data_ptr() for one in (*state, rows, grad))
    return (values.data_ptr(), _is_bf16(values), values.shape[1]), (*pointers, len(rows))


def _is_bf16(values: Tensor) -> bool:
    return values.dtype == torch.bfloat16


def _accept(name: str, tensor: Tensor, dtype: torch.dtype) -> None:
    if tensor.device.type != "cpu" or tensor.dtype != dtype:
        raise Unsupported(f"{name} of {tensor.dtype} on {tensor.device.type}; accepted: {dtype} on cpu")


def _accept_indices(name: str, indices: Tensor, length: int) -> None:
    if indices.numel() and not ((ends := indices.aminmax()).min >= 0 and ends.max < length):
        raise Unsupported(f"{name} from {int(ends.min)} to {int(ends.max)}; accepted: 0 to {length - 1}")


def _accept_table(values: Tensor) -> None:
    if values.dtype not in (torch.float32, torch.bfloat16):
        raise Unsupported(f"values of {values.dtype}; accepted: torch.float32, torch.bfloat16")
    _accept("values", values, values.dtype)
    if not values.is_contiguous() or values.shape[1] > MOST_WIDTH or len(values) >= 2**32:
        shape = " x ".join(map(str, values.shape))
        raise Unsupported(f"values {shape}; accepted: contiguous, rows of up to {MOST_WIDTH}, fewer than 2**32")
