"""What the kernels in Triton can take."""

import torch
import triton
from torch import Tensor

from memlayers.kernels.checks import Unsupported, accept_indices

INTERPRETED = bool(triton.knobs.runtime.interpret)  # as when its functions are defined, at the import of theirs


def accept_on_gpu(name: str, tensor: Tensor, *dtypes: torch.dtype) -> None:
    if tensor.dtype not in dtypes or not (tensor.is_cuda or INTERPRETED):
        accepted = f"{' or '.join(map(str, dtypes))} on a GPU, or anywhere if TRITON_INTERPRET=1 is set"
        raise Unsupported(f"{name} of {tensor.dtype} on {tensor.device.type}; accepted: {accepted}")


def inside(name: str, indices: Tensor, length: int) -> None:
    """Triton would read whatever lies beyond the table. On a GPU an index there stops the process at its next wait for
    the device, and none is waited for here.
    """
    if not indices.is_cuda:
        accept_indices(name, indices, length)
    elif indices.numel():
        ends = indices.aminmax()
        torch._assert_async((ends.min >= 0) & (ends.max < length), f"{name} beyond 0 to {length - 1}")
