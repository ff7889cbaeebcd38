"""Faster versions of functions in layers/, with the same signatures, chosen here and nowhere else."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from memlayers.kernels import native
from memlayers.layers import product_keys

TopK = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]


def product_key_topk(choice: str) -> TopK:
    """The function behind `kernels=`: reference; native (C, float32 on the CPU); or auto, native where it can be.

    Raises ValueError for native where it cannot be built; auto says so once and takes the reference.
    """
    if choice == "reference":
        return product_keys.product_key_topk
    try:
        native.library()
    except OSError as error:
        if choice == "native":
            raise ValueError(f"kernels=native: {error}; accepted: reference, auto") from None
        warnings.warn(f"kernels=auto: {error}; taking the reference", stacklevel=2)
        return product_keys.product_key_topk
    return _native if choice == "native" else _native_where_possible


def in_use(choice: str) -> str:
    """What `kernels=` comes to on this machine, for the record: reference or native."""
    return "reference" if product_key_topk(choice) is product_keys.product_key_topk else "native"


def _native(query: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    if not _can(query):
        found = "autocast" if torch.is_autocast_enabled("cpu") else query.dtype
        raise ValueError(f"kernels=native: {found} on {query.device}; accepted: torch.float32 on cpu, or kernels=auto")
    return native.product_key_topk(query, keys, k)


def _native_where_possible(query: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    return (native.product_key_topk if _can(query) else product_keys.product_key_topk)(query, keys, k)


def _can(query: Tensor) -> bool:
    return query.device.type == "cpu" and query.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
