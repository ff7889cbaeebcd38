"""The lookup in C: see look_up.c and look_up_back.c."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from memlayers.kernels.build import library
from memlayers.kernels.checks import MOST_WIDTH, Unsupported, accept

MOST_TOPK = 256
MOST_KEYS = 2**16  # a half: slots have 32 bits, and keys 16
PART = 512  # rows summed in order for a gain's gradient, so that its digits do not depend on the number of threads


def look_up(query: Tensor, keys: Tensor, gains: Sequence[Tensor] | None, k: int) -> tuple[Tensor, Tensor]:
    """As memlayers.layers.product_keys.look_up; of equal scores the lower keys first.

    No half score and no normed query is written to memory, and backward touches the k chosen keys, not all n.
    """
    gain_pair = tuple(gains or ())  # a ParameterList is slow to iterate
    for name, tensor in (("query", query), ("keys", keys), *(("gains", gain) for gain in gain_pair)):
        accept(name, tensor, torch.float32)
    n, c = keys.shape[2:]
    if not 1 <= k <= min(n, MOST_TOPK):
        raise Unsupported(f"topk={k}; accepted: 1 to {min(n, MOST_TOPK)}")
    if keys.shape != (query.shape[1], 2, n, query.shape[3]) or n > MOST_KEYS or c > MOST_WIDTH:
        shapes = f"query {tuple(query.shape)} and keys {tuple(keys.shape)}"
        raise Unsupported(f"{shapes}; accepted: (t, h, 2, c) and (h, 2, n, c), n up to {MOST_KEYS}")
    if any(gain.shape != (c,) for gain in gain_pair):
        raise Unsupported(f"gains {', '.join(str(tuple(gain.shape)) for gain in gain_pair)}; accepted: ({c},) both")
    slots, weights = _LookUp.apply(query, keys, *(gain_pair or (None, None)), k)
    return slots, weights


class _LookUp(torch.autograd.Function):
    """Lookup with its gradient. Letters: t tokens, h heads, c half-key width, n keys a half."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, keys: Tensor, query_gain: Tensor | None, key_gain: Tensor | None, k: int
    ) -> tuple[Tensor, Tensor]:
        query, keys = query.contiguous(), keys.contiguous()
        query_gain, key_gain = (None if gain is None else gain.contiguous() for gain in (query_gain, key_gain))
        (t, h, _, c), n = query.shape, keys.shape[2]
        inverses, key_inverses = query.new_empty(t, h, 2), keys.new_empty(h, 2, n)
        ready, scores = torch.empty_like(keys), query.new_empty(t, h, k)
        slots = torch.empty_like(scores, dtype=torch.int64)
        eps = torch.finfo(query.dtype).eps
        results = pointer(key_inverses), pointer(ready), torch.get_num_threads()
        library().ready_keys(pointer(keys), pointer(key_gain), 2 * h * n, c, eps, c**-0.5, *results)
        inputs = pointer(query), pointer(query_gain), pointer(ready)
        outputs = pointer(inverses), pointer(scores), pointer(slots)
        if library().look_up(*inputs, t, h, c, n, k, eps, *outputs, torch.get_num_threads()):
            raise MemoryError("the lists of a few tokens do not fit into memory")
        weights = scores.exp_()  # torch's, for the same digits as the reference
        weights /= weights.sum(dim=-1, keepdim=True)
        ctx.save_for_backward(query, keys, query_gain, key_gain, inverses, key_inverses, ready, slots, weights)
        ctx.mark_non_differentiable(slots)
        ctx.set_materialize_grads(False)  # slots have no gradient
        return slots, weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, keys, query_gain, key_gain, inverses, key_inverses, ready, slots, weights = ctx.saved_tensors
        (t, h, _, c), n, grad = query.shape, keys.shape[2], grad.contiguous()
        few = max(1, PART // (2 * h))  # tokens
        grad_query, grad_keys, chosen = torch.empty_like(query), torch.zeros_like(keys), torch.empty_like(slots)
        parts, key_parts = query.new_zeros(-(-t // few), c), keys.new_zeros(-(-2 * h * n // PART), c)
        inputs = (grad, weights, slots, query, query_gain, inverses, ready)
        outputs = (chosen, grad_query, grad_keys, parts)
        shape = t, h, c, n, slots.shape[-1], few
        library().look_up_back(*map(pointer, inputs), *shape, *map(pointer, outputs), torch.get_num_threads())
        key_inputs = (grad_keys, keys, key_gain, key_inverses)
        library().ready_keys_back(
            *map(pointer, key_inputs), 2 * h * n, c, c**-0.5, PART, pointer(key_parts), torch.get_num_threads()
        )
        gains = (None, None) if query_gain is None else (parts.sum(dim=0), key_parts.sum(dim=0))
        return grad_query, grad_keys, *gains, None


def pointer(tensor: Tensor | None) -> int | None:
    """The address of the tensor's first number, or None."""
    return None if tensor is None else tensor.data_ptr()
