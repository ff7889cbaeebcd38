"""Checks of what the C kernels support: Unsupported, with one line, before any tensor is changed."""

import torch
from torch import Tensor

MOST_WIDTH = 16_384  # numbers of a row: kernels keep two rows on the stack


class Unsupported(ValueError):
    """Raised for tensors that a kernel does not support."""


def accept(name: str, tensor: Tensor, dtype: torch.dtype) -> None:
    if tensor.device.type != "cpu" or tensor.dtype != dtype:
        raise Unsupported(f"{name} of {tensor.dtype} on {tensor.device.type}; accepted: {dtype} on cpu")


def accept_indices(name: str, indices: Tensor, length: int) -> None:
    if indices.numel() and not ((ends := indices.aminmax()).min >= 0 and ends.max < length):
        raise Unsupported(f"{name} from {int(ends.min)} to {int(ends.max)}; accepted: 0 to {length - 1}")


def accept_table(values: Tensor) -> None:
    if values.dtype not in (torch.float32, torch.bfloat16):
        raise Unsupported(f"values of {values.dtype}; accepted: torch.float32, torch.bfloat16")
    accept("values", values, values.dtype)
    if not values.is_contiguous() or values.shape[1] > MOST_WIDTH or len(values) >= 2**32:
        shape = " x ".join(map(str, values.shape))
        raise Unsupported(f"values {shape}; accepted: contiguous, rows of up to {MOST_WIDTH}, fewer than 2**32")


def is_bf16(values: Tensor) -> bool:
    return values.dtype == torch.bfloat16
