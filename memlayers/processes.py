"""All-reduce with a gradient, for layers whose statistics are of the whole batch, over all processes."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def all_reduce_sum(local: Tensor) -> Tensor:
    """The sum of `local`, of any shape, over all processes of the default group, which call together.

    Its gradient is the sum of the gradients of all processes, whose mean DistributedDataParallel then takes. With one
    process it returns `local` itself.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return local
    total: Tensor = _Sum.apply(local)
    return total


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, local: Tensor) -> Tensor:
        total = local.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, grad: Tensor) -> Tensor:
        return all_reduce_sum(grad)
