"""Checks of what the Triton kernels support."""

import torch
import triton
from torch import Tensor

from memlayers.kernels.checks import Unsupported, accept_indices

INTERPRETED = bool(triton.knobs.runtime.interpret)  # read at import, as Triton reads it when kernels are defined


def accept_on_gpu(name: str, tensor: Tensor, *dtypes: torch.dtype) -> None:
    if tensor.dtype not in dtypes or not (tensor.is_cuda or INTERPRETED):
        accepted = f"{' or '.join(map(str, dtypes))} on a GPU, or anywhere if TRITON_INTERPRET=1 is set"
        raise Unsupported(f"{name} of {tensor.dtype} on {tensor.device.type}; accepted: {accepted}")


def accept_range(name: str, indices: Tensor, length: int) -> None:
    """Refuse indices outside 0 .. length - 1, where Triton would read other memory. On the CPU raises Unsupported; on a
    GPU an asynchronous assertion fails at the next synchronisation, so that none is needed here.
    """
    if not indices.is_cuda:
        accept_indices(name, indices, length)
    elif indices.numel():
        ends = indices.aminmax()
        torch._assert_async((ends.min >= 0) & (ends.max < length), f"{name} beyond 0 to {length - 1}")
