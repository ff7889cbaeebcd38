"""What the machine does: PyTorch's own FLOP counter, told of the operations that it leaves at zero."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

aten = torch.ops.aten


def bag(table: Any, indices: Any, *_: Any, **__: Any) -> int:
    """A multiply and an add for each entry of each row that is read."""
    return 2 * math.prod(indices) * table[1]


def bag_of_weights(grad: Any, table: Any, indices: Any, *_: Any, **__: Any) -> int:
    """The product of a row of the table with a row of the gradient for each read."""
    return 2 * math.prod(indices) * table[1]


def dense_bag(grad: Any, indices: Any, *_: Any, **__: Any) -> int:
    return 2 * math.prod(indices) * grad[1]


def topk(x: Any, k: int, *_: Any, **__: Any) -> int:
    """Each candidate against a heap of k."""
    return math.prod(x) * max(1, math.ceil(math.log2(k)))


def sort(x: Any, *_: Any, **__: Any) -> int:
    return math.prod(x) * math.ceil(math.log2(max(2, math.prod(x))))


def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


def convolution_backward(grad: Any, x: Any, weight: Any, *rest: Any, **__: Any) -> int:
    """Each output is a product of a filter with so many inputs; torch's own formula forgets groups.

    Weights are (outputs, inputs of a group, width), gradients (batch, outputs, positions).
    """
    return sum(rest[-1][:2]) * 2 * math.prod(weight) * grad[0] * math.prod(grad[2:])


FORMULAS = {
    aten._embedding_bag: bag,
    aten._embedding_bag_forward_only: bag,  # the gradient of the rows, as a bag of output gradients
    aten._embedding_bag_per_sample_weights_backward: bag_of_weights,
    aten._embedding_bag_backward: dense_bag,
    aten.convolution_backward: convolution_backward,
    aten.topk: topk,
    aten.sort: sort,
    aten._scaled_dot_product_flash_attention_for_cpu: attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
}


def count(run: Callable[[], Tensor]) -> tuple[int, int]:
    """FLOPs of `run`, and of the backward pass from what it returns."""
    counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
    with counter:
        out = run()
        forward = counter.get_total_flops()
        out.backward(torch.ones_like(out))
    return forward, counter.get_total_flops() - forward
