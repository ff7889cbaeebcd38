"""The search in C: see topk.c."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from memlayers.kernels.build import library
from memlayers.kernels.checks import MOST_WIDTH, Unsupported, accept

MOST_TOPK = 256
MOST_KEYS = 2**16  # a half: slots have 32 bits


def product_key_topk(query: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As memlayers.layers.product_keys.product_key_topk; of equal scores the lower keys first.

    No half score is written to memory, and backward touches the k chosen keys, not all n.
    """
    accept("query", query, torch.float32)
    accept("keys", keys, torch.float32)
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
        ctx.set_materialize_grads(False)  # slots have none
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
